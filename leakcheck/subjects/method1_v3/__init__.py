"""Method1_v3, the model that leakcheck was built for, and its registration with transformers' auto classes."""

from transformers import AutoConfig, AutoModelForCausalLM

from .configuration_method1_v3 import Method1Config_v3
from .modeling_method1_v3 import Method1LlamaForCausalLM_v3

# A folder or a config.json that names `method1-v3` loads like any other model type.
AutoConfig.register(Method1Config_v3.model_type, Method1Config_v3, exist_ok=True)
AutoModelForCausalLM.register(Method1Config_v3, Method1LlamaForCausalLM_v3, exist_ok=True)

__all__ = ["Method1Config_v3", "Method1LlamaForCausalLM_v3"]
