"""Which leaks: one entry each."""

from dataclasses import dataclass

MODELS = "benchmarks/real_leaks/models"
TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Leak:
    """A leak that a release of `package` has.

    `before`: the last release that has it. `fixed`: the first that has not, or `None` where the `newest` has it too.
    `spec`: what builds a model that has it; `options`: how it is audited. `file`: the file that the audit must point
    at. `why`: what leaks, and why. `public`: the issue, pull request or commit, if there is one.
    `needs`: what the package imports, beside what leakcheck itself needs.
    """

    name: str
    package: str
    before: str
    fixed: str | None
    spec: str
    file: str
    why: str
    public: str = ""
    options: tuple[str, ...] = ()
    newest: str = ""
    needs: tuple[str, ...] = ()

    @property
    def after(self) -> str:
        """The release that is compared with `before`."""
        return self.fixed or self.newest

    def requirements(self, version: str) -> tuple[str, ...]:
        """What is installed to audit a release."""
        needs = self.needs
        if self.package == TRANSFORMERS:
            needs = next(pins for since, pins in reversed(LIBRARY) if _number(version) >= since)
        return (f"{self.package}=={version}", *needs)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


# What releases of transformers from each on import; the rest is in constraints.txt.
HUB_0 = ("huggingface_hub==0.36.2", "requests==2.34.2", "urllib3==2.8.0", "charset-normalizer==3.5.2")
HUB_1 = ("huggingface_hub==1.33.0", "httpx==0.28.1", "httpcore==1.0.9")
LIBRARY = (
    ((4, 46), (*HUB_0, "tokenizers==0.20.3")),
    ((4, 47), (*HUB_0, "tokenizers==0.21.4")),
    ((4, 56), (*HUB_0, "tokenizers==0.22.2")),
    ((5, 0), (*HUB_1, "tokenizers==0.22.2")),
    ((5, 16), HUB_1),
    ((5, 18), ()),
)

SDPA = ("--attn", "sdpa")  # where the backend makes no difference
EINOPS = "einops==0.8.2"
FUTURE_DECODERS = "https://github.com/huggingface/transformers/issues/48745"
LUCIDRAINS = "https://github.com/lucidrains"


def _library(
    model: str, before: str, fixed: str, why: str, public: str = "", file: str = "", options: tuple[str, ...] = ()
) -> Leak:
    """A leak of a causal language model of transformers, in its modelling file unless told otherwise."""
    return Leak(
        name=model.replace("_", "-"),
        package=TRANSFORMERS,
        before=before,
        fixed=fixed,
        spec=f"{MODELS}/causal_lms.py:{model}",
        file=file or f"modeling_{model}.py",
        why=why,
        public=public,
        options=options,
    )


WRONG_AXIS = (
    "the recurrence over chunks, written in torch, sums over the wrong axis: a chunk reads the state of later ones"
)
BIDIRECTIONAL = "the decoder gets the encoder's bidirectional mask: `is_decoder` is not asked"

LEAKS = (
    _library("mamba2", "4.47.1", "4.48.0", WRONG_AXIS, "https://github.com/huggingface/transformers/issues/34817"),
    _library(
        "zamba2",
        "5.14.1",
        "5.15.0",
        WRONG_AXIS,
        "https://github.com/huggingface/transformers/issues/47475",
        options=SDPA,
    ),
    _library(
        "nemotron_h",
        "5.14.1",
        "5.15.0",
        WRONG_AXIS,
        "https://github.com/huggingface/transformers/issues/47246",
        options=SDPA,
    ),
    _library("roformer", "5.17.0", "5.18.0", BIDIRECTIONAL, FUTURE_DECODERS),
    _library("rembert", "5.17.0", "5.18.0", BIDIRECTIONAL, FUTURE_DECODERS),
    _library("megatron_bert", "5.17.0", "5.18.0", BIDIRECTIONAL, FUTURE_DECODERS),
    _library("big_bird", "5.17.0", "5.18.0", BIDIRECTIONAL, FUTURE_DECODERS),
    _library(
        "bert_generation",
        "4.46.3",
        "4.47.0",
        "with a cache, which is the default, no mask is made",
        "https://github.com/huggingface/transformers/pull/35043",
    ),
    _library(
        "doge",
        "5.17.0",
        "5.18.0",
        "under sdpa there is no causal mask where there is no padding, and the model's own dynamic mask, which is then "
        "all that masks, is not causal",
        "https://github.com/huggingface/transformers/issues/48748",
    ),
    _library(
        "glm_moe_dsa",
        "5.10.4",
        "5.11.0",
        "under sdpa there is no causal mask where there is no padding, and the mask of the tokens that the indexer "
        "chooses, which is then all that masks, is not causal",
    ),
    _library(
        "glm_moe_dsa_padded",
        "5.16.1",
        "5.17.0",
        "under sdpa the mask of a padded batch is boolean, and the indexer adds it to its scores",
        "https://github.com/huggingface/transformers/pull/48363",
        file="modeling_glm_moe_dsa.py",
    ),
    _library("moshi", "5.17.0", "5.18.0", "the eager decoder makes a causal mask only if it is given a padding mask"),
    _library(
        "recurrent_gemma",
        "5.3.0",
        "5.4.0",
        "of an input longer than the window the cache, which is the default, hands on the last keys only: the first "
        "columns of the mask are put on them",
    ),
    _library(
        "llama4",
        "4.56.0",
        "4.56.1",
        "the router's scores are laid out by token, the experts' inputs by expert: tokens get the scores of others",
        options=SDPA,
    ),
    Leak(
        name="flash",
        package="FLASH-pytorch",
        before="0.0.5",
        fixed="0.0.6",
        spec=f"{MODELS}/flash_gau.py",
        file="flash_pytorch.py",
        why="the scores are masked after the attention has been made of them, and are not read again",
        public=f"{LUCIDRAINS}/FLASH-pytorch/commit/1424235",
        needs=(EINOPS,),
    ),
    Leak(
        name="local-attention",
        package="local-attention",
        before="1.2.1",
        fixed="1.2.2",
        spec=f"{MODELS}/local_windows.py",
        file="local_attention.py",
        why="with `exact_windowsize` the causal mask is joined to the window's by `and` where it takes `or`",
        public=f"{LUCIDRAINS}/local-attention/commit/270adde",
        needs=(EINOPS,),
    ),
    Leak(
        name="linear-attention",
        package="linear-attention-transformer",
        before="0.16.0",
        fixed="0.16.1",
        spec=f"{MODELS}/linear_attention_lm.py",
        file="linear_attention_transformer.py",
        why="the keys' exponentials are stabilised by the keys' maximum over all positions",
        public=f"{LUCIDRAINS}/linear-attention-transformer/commit/a0db8ba",
        needs=(
            EINOPS,
            "axial_positional_embedding==0.2.1",
            "linformer==0.2.1",
            "local-attention==1.4.4",
            "product_key_memory==0.1.10",
        ),
    ),
    Leak(
        name="hourglass",
        package="hourglass-transformer-pytorch",
        before="0.0.2",
        fixed="0.0.3",
        spec=f"{MODELS}/hourglass_lm.py",
        file="hourglass_transformer_pytorch.py",
        why="each shortened token attends to its bucket before the shift that keeps the bucket's later tokens from it",
        public=f"{LUCIDRAINS}/hourglass-transformer-pytorch/commit/d7dc1e0",
        needs=(EINOPS,),
    ),
    Leak(
        name="speech-encoder",
        package="speechbrain",
        before="0.5.16",
        fixed="1.0.0",
        spec=f"{MODELS}/speech_encoder.py",
        file="attention.py",
        why="`causal=True` reaches the encoder's convolutions; its attention gets no mask",
        public="https://github.com/speechbrain/speechbrain/issues/2182",
        needs=(
            "HyperPyYAML==1.2.3",
            "joblib==1.5.2",
            "ruamel.yaml==0.18.6",
            "scipy==1.17.1",
            "sentencepiece==0.2.3",
        ),
    ),
    Leak(
        name="reformer",
        package="reformer-pytorch",
        before="1.2.6",
        fixed=None,
        newest="1.4.4",
        spec="benchmarks/third_party/reformer.py",
        file="reformer_pytorch.py",
        why="chunks of a sequence sorted by hash: who is in one depends on all",
        needs=(EINOPS, "axial_positional_embedding==0.2.1", "local-attention==1.4.4", "product_key_memory==0.1.10"),
    ),
    Leak(
        name="routed-attention",
        package="CoLT5-attention",
        before="0.4.3",
        fixed=None,
        newest="0.11.2",
        spec=f"{MODELS}/routed_attention.py",
        file="transformer_block.py",
        why="which queries of a window are routed is decided among all of the window, later ones too",
        needs=(EINOPS, "local-attention==1.8.6"),
    ),
    Leak(
        name="prophetnet",
        package=TRANSFORMERS,
        before="4.47.1",
        fixed=None,
        newest="5.23.0",
        spec=f"{MODELS}/causal_lms.py:prophetnet",
        file="modeling_prophetnet.py",
        why="the predicting streams' scores by relative position are laid out by position and read by stream and head: "
        "positions get those of others",
    ),
)
