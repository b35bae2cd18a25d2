"""What to analyse: which matrices of which steps, and what they are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rankscope.analysis.history import Asked
from rankscope.checkpoints.contents import Parameter
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.run import Checkpoint
from rankscope.components.component import Component
from rankscope.components.selection import COMPONENTS, ON_REQUEST
from rankscope.errors import WrongSettingError
from rankscope.pipeline.choices import (
    Layers,
    Names,
    Numbers,
    Steps,
    layers_of,
    names_of,
    require_name,
    steps_of,
)

CUMULATIVE = "cumulative_update"
Windows = Literal["steps", "cycles"]
Against = Literal["previous", "first", "last"]
OUTSIDE_LAYERS = ("embed", "unembed")  # left out unless asked for: they dwarf all the others


@dataclass(frozen=True)
class Selection:
    """Which matrices to analyse, as in the parameters of `rankscope.analyze`.

    ``since`` is already open. For layers and steps, None means all.
    """

    components: tuple[str, ...] = tuple(c for c in COMPONENTS if c not in ON_REQUEST)
    roles: tuple[str, ...] = tuple(r for r in ROLES if r not in OUTSIDE_LAYERS)
    layers: Numbers | None = None
    steps: Numbers | None = None
    since: Checkpoint | None = None
    windows: Windows = "steps"
    subspaces: int | None = None  # size of the largest compared; None for no comparison
    against: tuple[str, ...] = ("previous", "first")

    @classmethod
    def of(
        cls,
        *,
        components: Names | None = None,
        roles: Names | None = None,
        layers: Layers | None = None,
        steps: Steps | None = None,
        since: Checkpoint | None = None,
        windows: Windows = "steps",
        subspaces: int | None = None,
        against: Names | None = None,
    ) -> Selection:
        """Make a selection: None means the default, and any value may be text.

        If ``since`` is given, the default components include cumulative updates.

        Raises
        ------
        WrongSettingError
            If a name is unknown, layers or steps cannot be parsed, or settings contradict each
            other.
        """
        default = cls()
        require_name(windows, get_args(Windows), setting="windows")
        named = (*default.components, *(() if since is None else (CUMULATIVE,)))
        if components is not None:
            named = names_of(components, COMPONENTS, setting="components")
        if since is not None and CUMULATIVE not in named:
            raise WrongSettingError(
                f"`since` is where {CUMULATIVE} begins, which is not among the `components`"
            )
        if subspaces is not None and subspaces < 1:
            raise WrongSettingError(f"`subspaces` is {subspaces}: give 1 or more")
        steps_against = default.against
        if against is not None:
            steps_against = names_of(against, get_args(Against), setting="against")
            if subspaces is None or not steps_against:
                raise WrongSettingError(
                    "`against` names the steps that subspaces are compared with: give at least "
                    "one, and `subspaces`"
                )
        return cls(
            named,
            default.roles if roles is None else names_of(roles, ROLES, setting="roles"),
            layers_of(layers),
            steps_of(steps),
            since,
            windows,
            subspaces,
            steps_against,
        )

    @property
    def asked(self) -> Asked:
        """What is wanted from every run."""
        is_whole = self.windows == "cycles"
        return Asked(self.components, self.has_step, self.has, self.since, is_whole)

    @property
    def named(self) -> tuple[str, ...]:
        """Components requested by name: none if the default or all were requested."""
        default = Selection().components
        if self.since is not None and self.components == (*default, CUMULATIVE):
            return (CUMULATIVE,)
        return () if self.components in (default, COMPONENTS) else self.components

    def has_step(self, step: int) -> bool:
        """Whether this step is requested."""
        return self.steps is None or step in self.steps

    def has(self, matrix: Component | Parameter) -> bool:
        """Whether this matrix is requested."""
        in_layers = self.layers is None or matrix.layer in self.layers
        return matrix.role in self.roles and in_layers
