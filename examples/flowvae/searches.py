"""What the searches try with each baseline, twelve settings on each data set: its own, and those all have in common."""

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A row of a search: what it is called, the configuration of its method, and what differs from that."""

    name: str
    method: str
    model: dict[str, Any]


_TRAINING: dict[str, dict[str, Any]] = {
    "learning rate 0.001": {"lr": 1e-3},
    "learning rate 0.004": {"lr": 4e-3},
    "learning rate held half-way": {"hold": 0.5},
    "learning rate 0.004, held half-way": {"lr": 4e-3, "hold": 0.5},
}


def _own(name: str, method: str, **settings: dict[str, Any]) -> list[Setting]:
    return [Setting(f"{name}, {each}", method, model) for each, model in settings.items()]


def _shared(name: str, method: str, sizes: tuple[int, ...], **best: Any) -> list[Setting]:
    """Settings of the training and the number of dimensions, beside the best of the method's own."""
    common = _TRAINING | {f"{size} dimensions": {"latent": size} for size in sizes}
    return [Setting(f"{name}, {each}", method, best | model) for each, model in common.items()]


def _alike(sizes: tuple[int, int], smallest: int, largest: int) -> list[Setting]:
    """The four methods whose settings can be the same on any data."""
    return [
        Setting("VAE, β = 1", "vae", {}),
        *_shared("VAE", "vae", (smallest, *sizes, largest)),
        *_own(
            "VAE",
            "vae",
            **{
                "learning rate 0.0005": {"lr": 5e-4},
                "learning rate 0.008": {"lr": 8e-3},
                "learning rate 0.008, held half-way": {"lr": 8e-3, "hold": 0.5},
            },
        ),
        *_own("β-VAE", "beta_vae", **{f"β = {beta:g}": {"beta": beta} for beta in (0.1, 0.25, 0.5, 2.0, 4.0, 8.0)}),
        *_shared("β-VAE, β = 0.25", "beta_vae", sizes, beta=0.25),
        *_own(
            "FactorVAE", "factor_vae", **{f"γ = {gamma:g}": {"gamma": gamma} for gamma in (0.5, 2.0, 5.0, 10.0, 35.0)}
        ),
        *_own("FactorVAE", "factor_vae", **{"γ = 2, quicker discriminator": {"gamma": 2.0, "discriminator_lr": 1e-3}}),
        *_shared("FactorVAE, γ = 2", "factor_vae", sizes, gamma=2.0),
        *_own(
            "SlowVAE",
            "slow_vae",
            **{
                f"γ = {gamma:g}, rate {rate:g}": {"gamma": gamma, "rate": rate}
                for gamma, rate in ((1.0, 6.0), (3.0, 6.0), (10.0, 6.0), (30.0, 6.0), (10.0, 1.0), (10.0, 20.0))
            },
        ),
        *_shared("SlowVAE", "slow_vae", sizes),
    ]


def _tvae(usual: int, *sizes: tuple[int, float]) -> list[Setting]:
    """Capsules and μ beside the `usual` number of capsules, and μ = 30."""
    own: dict[str, dict[str, Any]] = {
        f"{capsules} capsules of 6, μ = {mu:g}": {
            **({"capsules": capsules} if capsules != usual else {}),
            **({"mu": mu} if mu != 30 else {}),
        }
        for capsules, mu in sizes
    }
    return _own("TVAE", "tvae", **own) + _shared("TVAE", "tvae", ())


_FREE: dict[str, Any] = {"path_kl": None}
# What helps most, all at once.
_TOGETHER: dict[str, dict[str, Any]] = {
    f"path free, {size} dimensions, learning rate 0.004, held half-way": _FREE
    | {"latent": size, "lr": 4e-3, "hold": 0.5}
    for size in (64, 96)
}


def _poflow(sizes: tuple[int, ...], **own: dict[str, Any]) -> list[Setting]:
    own = own | {"96 units": {"width": 96}, "path free": _FREE}
    return _own("PoFlow", "poflow", **own) + _shared("PoFlow", "poflow", sizes) + _own("PoFlow", "poflow", **_TOGETHER)


def _ours(sizes: tuple[int, ...]) -> list[Setting]:
    """Ours beside them, as the tables have it and with what is tried with PoFlow, which learns from the same labels."""
    name, method = "ours, supervised", "supervised"
    together = _TOGETHER | {
        "96 dimensions, learning rate 0.004, held half-way": {"latent": 96, "lr": 4e-3, "hold": 0.5},
    }
    return [Setting(name, method, {}), *_shared(name, method, sizes), *_own(name, method, **together)]


BEST: list[Setting] = [
    Setting("β-VAE, β = 0.1", "beta_vae", {"beta": 0.1}),
    Setting("FactorVAE, γ = 2, learning rate 0.004", "factor_vae", {"gamma": 2.0, "lr": 4e-3}),
    Setting("SlowVAE, learning rate 0.004, held half-way", "slow_vae", {"lr": 4e-3, "hold": 0.5}),
    *_own("PoFlow", "poflow", **_TOGETHER),
    *_own("ours, supervised", "supervised", **{"learning rate held half-way": {"hold": 0.5}}, **_TOGETHER),
]
"""What the search on MNIST finds, to be trained in full."""

SETTINGS: dict[str, list[Setting]] = {
    "mnist": [
        *_alike((64, 96), 16, 128),
        *_tvae(18, (6, 1.0), (6, 5.0), (6, 30.0), (18, 5.0), (18, 30.0), (18, 60.0), (24, 30.0), (48, 30.0)),
        *_poflow(
            (64, 96),
            **{
                "change 1, wave 1": {"change_weight": 1.0},
                "change 0.1, wave 1": {"change_weight": 0.1},
                "change 0.1, wave 0.1": {"change_weight": 0.1, "ot_weight": 0.1, "initial_weight": 0.1},
                "change 0.01, wave 1": {"change_weight": 0.01},
            },
        ),
        *_ours((64, 96)),
    ],
    "shapes3d": [
        *_alike((32, 96), 24, 128),
        *_tvae(48, (18, 5.0), (18, 30.0), (36, 30.0), (48, 5.0), (48, 30.0), (48, 60.0), (72, 30.0)),
        Setting("TVAE, 48 capsules of 6, μ = 30, all frames seen", "tvae", {"window": 4}),
        *_poflow(
            (32, 96),
            **{
                "change 0.1, wave 1": {"change_weight": 0.1},
                "change 0.01, wave 1": {},
                "change 0.01, wave 0.1": {"ot_weight": 0.1, "initial_weight": 0.1},
                "change 0.001, wave 1": {"change_weight": 0.001},
            },
        ),
        *_ours((32, 96)),
    ],
}
