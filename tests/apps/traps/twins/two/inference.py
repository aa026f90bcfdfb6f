class App:
    def run(self, input_data: dict):
        return "two"
