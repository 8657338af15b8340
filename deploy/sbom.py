"""Writes what the binary and its pages are made of as CycloneDX 1.6, and checks it against the schema.

    python deploy/sbom.py FOLDER

zerostate.cdx.json has the crates that are linked into the binary, with licences and checksums; web.cdx.json the packages that are bundled
into the pages. It needs `cyclonedx-python-lib[json-validation]`; `make sbom` installs it.
"""

import base64
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
LICENCES = LicenseFactory()


def component(kind, name, version, licence, checksum=None, of=ComponentType.LIBRARY):
    namespace, _, bare = name.rpartition("/")
    return Component(type=of, group=namespace or None, name=bare, version=version, bom_ref=f"{kind}:{name}@{version}",
                     purl=PackageURL(kind, namespace or None, bare, version),
                     licenses=[LICENCES.make_from_string(licence.replace("/", " OR "))] if licence else [],
                     hashes=[checksum] if checksum else [])


def crates():
    """The crates that the binary is linked from, and who needs whom."""
    host = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout.split("host: ")[1].split()[0]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host]
    meta = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    sums = {(it["name"], it["version"]): it["checksum"] for it in locked if "checksum" in it}
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    made, bom = {}, Bom()

    def add(identity):
        if identity in made:
            return made[identity]
        package = packages[identity]
        checksum = sums.get((package["name"], package["version"]))
        mine = identity == meta["resolve"]["root"]
        made[identity] = component("cargo", package["name"], package["version"], package["license"],
                                   HashType(alg=HashAlgorithm.SHA_256, content=checksum) if checksum else None,
                                   ComponentType.APPLICATION if mine else ComponentType.LIBRARY)
        linked = [dep["pkg"] for dep in nodes[identity]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        needs = [add(other) for other in linked]
        if mine:
            bom.metadata.component = made[identity]
        else:
            bom.components.add(made[identity])
        bom.register_dependency(made[identity], needs)
        return made[identity]

    sys.setrecursionlimit(10_000)
    add(meta["resolve"]["root"])
    return bom


def pages():
    """The packages of web/ that are not only for its building."""
    lock = json.loads((ROOT / "web/package-lock.json").read_text())["packages"]
    own = lock[""]
    bom = Bom()
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    bom.metadata.component = component("npm", own["name"], version, own.get("license"), of=ComponentType.APPLICATION)
    for path, package in sorted(lock.items()):
        if path and not package.get("dev"):
            checksum = None
            if "integrity" in package:
                digest = base64.b64decode(package["integrity"].removeprefix("sha512-"))
                checksum = HashType(alg=HashAlgorithm.SHA_512, content=digest.hex())
            bom.components.add(component("npm", path.rpartition("node_modules/")[2], package["version"], package.get("license"), checksum))
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, bom in [("zerostate", crates()), ("web", pages())]:
    written = JsonV1Dot6(bom).output_as_string(indent=1)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    if wrong:
        sys.exit(f"{name}: {wrong}")
    unnamed = sorted(it.name for it in bom.components if not it.licenses)
    if unnamed:
        sys.exit(f"{name}: no licence is known of {unnamed}")
    (folder / f"{name}.cdx.json").write_text(written + "\n")
    print(f"{folder / f'{name}.cdx.json'}: {len(bom.components)} components")
