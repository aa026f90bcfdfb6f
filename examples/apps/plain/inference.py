"""Plain: an app is a class named App with a method; no base class and no models are needed.

Without annotations nothing is checked: `input_data` is the JSON object of the request as it came.
"""


class App:
    def setup(self, config):
        self.greeting = config.get("greeting", "Hello")

    def run(self, input_data):
        """Greet whoever is named."""
        name = input_data.get("name", "world")
        return {"greeting": f"{self.greeting}, {name}!", "letters": len(name)}
