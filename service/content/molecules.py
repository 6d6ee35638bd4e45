"""Molecules, as SMILES or as a record of an SDF file, to atoms and the bonds between them; with the extra `chemistry`.

An atom's tag is its element, in lower case where it is aromatic, with its hydrogens and its charge: `CH3`, `c`, `O-`.
Kinds of bonds are not read, and need not be: what the tags of two neighbours tell says which it is, so that ethane,
ethene and ethyne are three graphs.

Weininger 1988, "SMILES, a chemical language and information system", https://doi.org/10.1021/ci00057a005.
"""

import importlib.util
import re
from typing import Any

from service.content.graph_formats import Parsed, as_text, short
from service.errors import BadItem

MOLECULES = (".sdf", ".smi", ".smiles")  # of files with a molecule a record
RECORD_END = "$$$$"  # of SDF
_HAS_RDKIT = importlib.util.find_spec("rdkit") is not None  # imported where it is used: it takes 150 MB
_INSTALL = "install `pip install 'shortlist[chemistry]'` and import it again"
# Atoms of the organic subset, those in brackets, bonds, branches and rings: hardly any word of prose is of these alone.
_SMILES = re.compile(
    r"(?=[A-Za-z\[*])(?:Br|Cl|[BCNOPSFIbcnops*]|\[\d*[A-Za-z*][^\[\]\s]*\]|[-=#$:/\\.()~]|%?\d)++"
)
_LONGEST_SMILES = 5_000  # characters: rings are looked for in all of it
_LONGEST_BLOCK = 2**20  # bytes
_VERSIONS = ("V2000", "V3000")


def molecule(data: bytes) -> Parsed | None:
    """None for what does not look like one. Raises `BadItem`."""
    text = as_text(data)
    if text is None:
        return None
    lines = text.splitlines()
    is_block = any(line.rstrip().endswith(_VERSIONS) for line in lines[:6]) or any(
        line.startswith("M  END") for line in lines
    )
    words = text.split()
    if not is_block and not (len(text.strip().splitlines()) == 1 and _SMILES.fullmatch(words[0])):
        return None
    if not _HAS_RDKIT:
        raise BadItem(reason=f"it is a molecule ({'SDF' if is_block else 'SMILES'}): {_INSTALL}")
    if is_block and len(data) > _LONGEST_BLOCK:
        raise BadItem(reason=f"a molecule of {len(data)} bytes is more than {_LONGEST_BLOCK}")
    if not is_block and len(words[0]) > _LONGEST_SMILES:
        raise BadItem(reason=f"a SMILES of {len(words[0])} characters is longer than {_LONGEST_SMILES}")
    return _atoms_of(_sanitised(text if is_block else words[0], is_block))


def _sanitised(text: str, is_block: bool) -> Any:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        if is_block:
            found = Chem.MolFromMolBlock(text.partition(RECORD_END)[0], sanitize=False, removeHs=False)
        else:
            found = Chem.MolFromSmiles(text, sanitize=False)
        if found is None:
            what = "a broken or truncated record of a molecule" if is_block else "no SMILES"
            raise BadItem(reason=f"RDKit finds it to be {what}: {short(text.strip().splitlines()[0])}")
        try:
            Chem.SanitizeMol(found)
            return Chem.RemoveHs(found)
        except ValueError as error:
            raise BadItem(reason=f"no molecule by the rules of chemistry ({short(str(error))})") from None


def _atoms_of(found: Any) -> Parsed:
    atoms = [{"tag": _tag(atom)} for atom in found.GetAtoms()]
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in found.GetBonds()]
    return Parsed(range(len(atoms)), atoms, bonds)


def _tag(atom: Any) -> str:
    symbol, hydrogens, charge = atom.GetSymbol(), atom.GetTotalNumHs(), atom.GetFormalCharge()
    if atom.GetIsAromatic():
        symbol = symbol.lower()
    held = "H" + (str(hydrogens) if hydrogens > 1 else "") if hydrogens else ""
    sign = ("+" if charge > 0 else "-") + (str(abs(charge)) if abs(charge) > 1 else "") if charge else ""
    return f"{symbol}{held}{sign}"
