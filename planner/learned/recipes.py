"""Methods that learn, each a short declaration over one engine.

They are the ideas of published methods in this project's setting, not those methods: tokens find
their step at run time, so a learned bound is a factor on it; the calibration is pictures; levels
stand half a step beside the whole ones. docs/learning.md says of each what differs.
"""

from planner.learned.plan import LearnedRecipe

_LEAST_ERROR = {"weight_scale": "mse", "activation_scale": "blend"}
"""Steps near those of least squared error, where these methods start, not at the largest value."""

LEARNED_RECIPES: dict[str, LearnedRecipe] = {
    "qartsr": LearnedRecipe(
        "QArtSR: svdquant, its smoothing, factors, steps and rounding learned block by block from"
        " the last, then all together",
        "svdquant",
        {},
    ),
    "qartsr-forward": LearnedRecipe(
        "qartsr from the first block to the last", "svdquant", {"order": "forward"}
    ),
    "qartsr-whole": LearnedRecipe(
        "qartsr without learning blocks one by one", "svdquant", {"order": "none"}
    ),
    "qartsr-blocks": LearnedRecipe(
        "qartsr without learning all blocks together afterwards", "svdquant", {"whole_steps": 0}
    ),
    "qartsr-no-rounding": LearnedRecipe(
        "qartsr without the low-rank update inside the rounding",
        "svdquant",
        {"parts": ("steps", "factors", "smoothing")},
    ),
    "qartsr-no-smoothing": LearnedRecipe(
        "qartsr whose smoothing does not learn",
        "svdquant",
        {"parts": ("steps", "factors", "rounding")},
    ),
    "finetune": LearnedRecipe(
        "finetuning of standard by the final latent: steps of rows and factors",
        "standard",
        {"order": "none", "result": "latent", "parts": ("steps", "factors"), "rate": 3e-4},
    ),
    "q-diffusion": LearnedRecipe(
        "Q-Diffusion: AdaRound block by block on all timesteps, then bounds of activations",
        "rtn",
        {"order": "forward", "parts": ("adaround",), "whole_parts": ("bounds",)},
        _LEAST_ERROR,
    ),
    "efficientdm": LearnedRecipe(
        "EfficientDM: a low-rank update inside the rounding, and bounds of activations for every"
        " timestep, learned as a whole",
        "rtn",
        {"order": "none", "parts": ("rounding", "steps", "timestep-bounds"), "update_rank": 32},
        _LEAST_ERROR,
    ),
    "ptq4dit": LearnedRecipe(
        "PTQ4DiT: channels balanced by their salience over timesteps, then AdaRound block by block",
        "rtn",
        {"order": "forward", "balance": "salience", "parts": ("adaround",), "whole_steps": 0},
        _LEAST_ERROR,
    ),
    "q-dit": LearnedRecipe(
        "Q-DiT: sizes of groups that share a step, layer by layer, by an evolutionary search",
        "rtn",
        {"order": "none", "parts": (), "groups": 24, "whole_steps": 0},
    ),
    "passionsr": LearnedRecipe(
        "PassionSR: an equivalent scale of channels learned block by block, then bounds of weights"
        " and activations",
        "rtn",
        {
            "order": "forward",
            "balance": "passionsr",
            "parts": ("smoothing",),
            "whole_parts": ("steps", "bounds"),
        },
        _LEAST_ERROR,
    ),
    "flatquant": LearnedRecipe(
        "FlatQuant: a Kronecker-factored map of every input, and bounds, learned block by block",
        "quarot",
        {"order": "forward", "parts": ("transform", "steps", "bounds"), "whole_steps": 0},
    ),
    "quest": LearnedRecipe(
        "QuEST: finetuning of the layers that read the timestep, then of feed-forward layers and of"
        " bounds of activations for every timestep",
        "rtn",
        {
            "order": "forward",
            "parts": ("weights",),
            "layers": r"\.norm",
            "whole_parts": ("weights", "timestep-bounds"),
            "whole_layers": r"\.ff",
        },
        _LEAST_ERROR,
    ),
}
