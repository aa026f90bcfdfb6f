import os


class App:
    def run(self, input_data: dict):
        return {"devices": os.environ["CUDA_VISIBLE_DEVICES"], "word": os.environ.get("TRAP_WORD", "")}
