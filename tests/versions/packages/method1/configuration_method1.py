from transformers.models.llama.configuration_llama import LlamaConfig


class Method1Config_v3(LlamaConfig):
    model_type = "method1-v3-4.47"
