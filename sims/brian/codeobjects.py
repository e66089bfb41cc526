"""Brian2 code objects whose templates are this package's: numpy, Cython and C++ standalone."""

from collections.abc import Mapping, Sequence
from typing import Any

from brian2 import Group, get_device
from brian2.codegen.runtime.cython_rt.cython_rt import CythonCodeObject
from brian2.codegen.runtime.numpy_rt.numpy_rt import NumpyCodeObject
from brian2.core.variables import Variables
from brian2.devices.cpp_standalone.codeobject import CPPStandaloneCodeObject
from brian2.devices.cpp_standalone.device import CPPStandaloneDevice
from brian2.groups.group import CodeRunner

__all__ = ["NumpyTemplates", "TemplateRunner", "code_object_class", "is_standalone"]


class NumpyTemplates(NumpyCodeObject):
    """Runs ``templates/*.py_``."""

    templater = NumpyCodeObject.templater.derive("sims.brian")


class CythonTemplates(CythonCodeObject):
    """Runs ``templates/*.pyx``."""

    templater = CythonCodeObject.templater.derive("sims.brian")

    def compile_block(self, block: str) -> Any:
        """Compile; an error, which Brian2 2.9 passes over, so that nothing would run, is raised."""
        compiled = super().compile_block(block)
        code = getattr(self.code, block, "").strip()
        if compiled is None and code and "EMPTY_CODE_BLOCK" not in code:
            raise RuntimeError(f"Cython cannot compile the block {block!r} of {self.name}; see its messages above")
        return compiled


class StandaloneTemplates(CPPStandaloneCodeObject):
    """Runs ``templates/*.cpp``."""

    templater = CPPStandaloneCodeObject.templater.derive("sims.brian")


def is_standalone() -> bool:
    """Whether the active Brian2 device is C++ standalone."""
    return isinstance(get_device(), CPPStandaloneDevice)


def code_object_class() -> type:
    """The code objects for the active device and code generation target."""
    if is_standalone():
        return StandaloneTemplates
    stock = get_device().code_object_class()
    return CythonTemplates if issubclass(stock, CythonCodeObject) else NumpyTemplates


class TemplateRunner(CodeRunner):
    """Runs one of this package's templates in every time step.

    Parameters
    ----------
    group : Group
        Whose clock is followed, and whose variables are at hand.
    template : str
        File in ``templates/``, without its suffix.
    when, order, name
        As for every Brian2 object.
    variables : sequence of str
        Variables of the group that the template needs.
    references : mapping of str to (Group, str)
        Variables of other groups, by the name under which the template knows them.
    settings : mapping
        What else the template is told.
    code : mapping of str to str
        Brian2 text, by the names of the places in the template where its code goes.
    """

    def __init__(
        self,
        group: Group,
        template: str,
        when: str,
        name: str,
        variables: Sequence[str] = (),
        references: Mapping[str, tuple[Group, str]] | None = None,
        settings: Mapping[str, Any] | None = None,
        order: int = 0,
        code: Mapping[str, str] | None = None,
        codeobj_class: type | None = None,
    ) -> None:
        references = references or {}
        CodeRunner.__init__(
            self,
            group,
            template,
            code=dict(code) if code else "",
            when=when,
            order=order,
            name=name,
            check_units=bool(code),
            template_kwds=dict(settings or {}),
            needed_variables=[*variables, *references],
            codeobj_class=codeobj_class or code_object_class(),
        )
        if not code:
            self.variables = Variables(self)
        for local, (owner, variable) in references.items():
            self.variables.add_reference(local, owner, variable)
