"""plan(): whole plans compared with files, and each decision by itself.

CHLAUNCH_UPDATE_GOLDEN=1 writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chlaunch.cdi.render import Bind, Named, Omission, Plain, Variable, Why
from chlaunch.errors import ImageError, RefusedError, UsageError
from chlaunch.launch import devices, flavour, options, site, wireup
from chlaunch.launch.context import Context
from chlaunch.launch.image import Image, Part
from chlaunch.launch.plan import Plan, Request, needs_offer, plan
from chlaunch.launch.starter import Starter
from chlaunch.launch.tables import Document, Row
from chlaunch.slurm import Offer

if TYPE_CHECKING:
    from chlaunch.launch.site import Site

GOLDEN = Path(__file__).parent / "golden"
FLAVOURS = {found.name: found for found in flavour.load()}
OURS = site.load({}, os.devnull)  # not what this machine may have in /etc
CRAY_EX, INFINIBAND, SLURM_PMIX = (site.load({}, name) for name in ("cray-ex", "infiniband", "slurm-pmix"))

LAPTOP = Context(ch_run="/opt/chlaunch/bin/ch-run", home="/home/alice", directory="/home/alice/run")
OPEN_MPI_4, OPEN_MPI_5 = (Starter("mpirun", version, f"Open MPI {version}") for version in ("4.1.4", "5.0.7"))
HYDRA = Starter("hydra", "4.2.3", "Hydra 4.2.3")
MPIRUN = replace(LAPTOP, mpirun="/usr/bin/mpirun", starter=OPEN_MPI_4)
LOGIN = replace(
    MPIRUN, srun="/usr/bin/srun", configuration="/etc/slurm/slurm.conf", directory="/scratch/alice/run"
)

GPU, FILE = (Why(what, "/etc/cdi/vendor.yaml") for what in ("vendor.com/gpu=0", "vendor.com/gpu"))
DEVICES = devices.from_plain(
    Plain(
        binds=(
            Bind("/usr/lib64/libgpu.so.1.2", "/usr/lib64/libgpu.so.1", read_only=True, why=FILE),
            Bind("/run/gpu", "/run/gpu", read_only=False, why=FILE),
            Bind("/data", "/data", read_only=True, why=FILE),
        ),
        variables=(Variable("GPUS", "$0: void", FILE), Variable("A", "device's", FILE)),
        ld_cache=(Named("/usr/lib64", FILE),),
        visible=(Named("/dev/gpu0", GPU),),
        omissions=(Omission("chmod", (), "it does nothing here", GPU),),
        warnings=("something about groups",),
    )
)


def part(name: str, version: str, *features: str) -> Part:
    """Return a library in an image."""
    return Part(FLAVOURS[name], version, f"/usr/lib/{name}", frozenset(features))


OMPI4 = Image(
    "/images/ompi4",
    (part("openmpi", "4.1.4"),),
    (part("pmix", "4.2.2", "munge"), part("ucx", "1.13.1"), part("psm2", "")),
    mpirun="mpirun",
)
OMPI5 = Image(
    "/images/ompi5",
    (part("openmpi", "5.0.7"),),
    (part("pmix", "5.0.7"), part("libfabric", "2.1.0")),
    mpirun="mpirun",
    has_environment=True,
)
MPICH5 = Image("/images/mpich5", (part("mpich", "5.0.2"),), (part("ucx", "1.20.1"),), mpirun="mpiexec.hydra")
BOTH = Image("/images/both", OMPI4.mpis + MPICH5.mpis, OMPI4.parts)
CRAY = Image(
    "/images/cray", (part("cray-mpich", "8.1.28"),), (part("libfabric", "1.15.2"),), mpirun="mpiexec"
)
PLAIN = Image("/images/plain")
SQUASHFS = Image("/images/app.sqfs", unseen="a SquashFS file")
STORED = Image("site/app:1", storage="/scratch/alice/storage", unseen="an image in storage")
STRANGE = Image("/images/strange", strange="libmpich.so.12")

DEBIAN = Offer(("pmix", "none", "cray_shasta", "pmi2", "pmix_v4"), "srun --mpi=list")
SHASTA = Offer(("cray_shasta", "none", "pmi2", "pmix"), "srun --mpi=list")
WITHOUT_PMIX = Offer(("none", "pmi2"), "srun --mpi=list")


def request_for(
    *launcher: str, command: tuple[str, ...] = ("./a.out", "in put"), at: Site = OURS, **given: Any
) -> Request:
    """Return a request with options given as click has them, set-env written set_env. at: the site."""
    said = options.from_command_line({name.replace("_", "-"): value for name, value in given.items()})
    return Request(options.merge(*at.layers, said), launcher, command)


def planned(
    request: Request, context: Context, image: Image, offer: Offer | None = DEBIAN, at: Site = OURS
) -> Plan:
    """Return the plan with a site's configuration; default: our own."""
    return plan(request, context, at, image, offer)


def text_of(made: Plan) -> str:
    """Return a plan as its golden file has it: the words, one a line, then reasons and notes."""
    reasons = [f"# {row.value}: {row.reason} [{row.origin.partition(':')[0]}]" for row in made.reasons]
    notes = [f"# note: {note}" for note in made.notes]
    return "\n".join([*map(shlex.quote, made.argv), "", *reasons, *notes, ""])


EVERYTHING: dict[str, Any] = {
    "bind": ("/data:/mnt", "results", "/scratch/alice/run:/scratch/alice/run"),
    "bind_ro": ("/data:/data", "inputs:/inputs"),
    "bind_try": ("$LOCAL/x:/local", "maybe"),
    "cd": "/mnt",
    "home": False,
    "set_env": ("A=1", "variables"),
    "unset_env": ("B*",),
    "env_default": ("C=3",),
    "set_env0": ("D=$A", "variables0"),
    "env": ("E=$A",),
    "uid": "0",
    "gid": "0",
    "write_fake": "2g",
    "write_fake_scope": "rank",
    "private_tmp": True,
    "no_passwd": True,
    "seccomp": True,
    "fuse_single": True,
    "ld_cache": ("/opt/vendor/lib",),
    "verbose": True,
    "join_tag": "t",
    "mpi": "pmix_v4",
}

CASES: dict[str, tuple[Request, Context, Image, Offer | None]] = {
    "srun-ompi4": (request_for("-N2", "-n4"), LOGIN, OMPI4, DEBIAN),
    "srun-ompi5": (request_for("-N2", "-n4"), LOGIN, OMPI5, DEBIAN),
    "srun-in-allocation": (request_for(), replace(LOGIN, place="allocation"), OMPI4, DEBIAN),
    "srun-plain-program": (request_for("-n4", command=("hostname",)), LOGIN, PLAIN, None),
    "srun-user-says-mpi": (request_for("-n4", "--mpi=pmix_v4"), LOGIN, OMPI5, None),
    "srun-ompi4-separate": (request_for("-n4", join=False, private_tmp=True), LOGIN, OMPI4, DEBIAN),
    "srun-mpich5-separate": (request_for("-n4", join=False), LOGIN, MPICH5, DEBIAN),
    "hydra-mpich5": (
        request_for("-n", "4"),
        replace(MPIRUN, starter=HYDRA, mpirun="/opt/bin/mpiexec"),
        MPICH5,
        None,
    ),
    "srun-device": (
        request_for("-n4", set_env=("A=1",), bind=("/data",)),
        replace(LOGIN, devices=DEVICES),
        OMPI5,
        DEBIAN,
    ),
    "srun-everything": (request_for("-n4", **EVERYTHING), LOGIN, OMPI4, None),
    "srun-image-file": (request_for("-n4"), LOGIN, SQUASHFS, None),
    "srun-stored-image": (request_for("-n4", mpi="pmix", write_fake="12%"), LOGIN, STORED, None),
    "mpirun-image-file": (request_for("-np", "4"), MPIRUN, SQUASHFS, None),
    "guest-image-file": (request_for("-n", "4", launcher="guest"), LAPTOP, SQUASHFS, None),
    "mpirun-ompi4": (request_for("-np", "4"), MPIRUN, OMPI4, None),
    "mpirun-ompi5": (request_for("-np", "4"), MPIRUN, OMPI5, None),
    "guest-ompi4": (request_for("-n", "4"), LAPTOP, OMPI4, None),
    "guest-ompi5": (request_for("-n", "4"), LAPTOP, OMPI5, None),
    "site-cray-ex": (request_for("-N2", "-n4", at=CRAY_EX), LOGIN, CRAY, SHASTA),
    "site-infiniband": (request_for("-N2", "-n4", at=INFINIBAND), LOGIN, OMPI4, DEBIAN),
    "site-slurm-pmix": (request_for("-N2", "-n4", at=SLURM_PMIX), LOGIN, OMPI5, DEBIAN),
}


SITES = {"site-cray-ex": CRAY_EX, "site-infiniband": INFINIBAND, "site-slurm-pmix": SLURM_PMIX}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    text = text_of(planned(*CASES[name], SITES.get(name, OURS)))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("CHLAUNCH_UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_every_golden_file_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_line_is_the_plan(name: str) -> None:
    made = planned(*CASES[name], SITES.get(name, OURS))
    assert "\n" not in made.line()
    assert tuple(shlex.split(made.line())) == made.argv
    with_environment = replace(made, environment={"A": "b c"})
    assert shlex.split(with_environment.line())[:2] == ["env", "A=b c"]


@pytest.mark.parametrize("name", CASES)
def test_srun_is_asked_only_if_needed(name: str) -> None:
    request, context, image, offer = CASES[name]
    assert needs_offer(request, context, image) == (offer is not None)


def chosen(context: Context, image: Image = OMPI4, **given: Any) -> str:
    """Return the launcher of a plan, by the first word of its first reason."""
    return planned(request_for(**given), context, image).reasons[0].value


@pytest.mark.parametrize(
    ("context", "launcher"),
    [
        (LOGIN, "srun"),
        (replace(LOGIN, configuration=None), "mpirun"),
        (replace(LOGIN, configuration=None, place="allocation"), "srun"),
        (replace(LOGIN, configuration=None, named_configuration="/gone", place="batch"), "mpirun"),
        (replace(LOGIN, srun=None), "mpirun"),
        (MPIRUN, "mpirun"),
        (replace(MPIRUN, starter=Starter()), "guest"),
        (replace(MPIRUN, starter=HYDRA), "guest"),
        (replace(MPIRUN, starter=OPEN_MPI_5), "guest"),
        (LAPTOP, "guest"),
    ],
)
def test_which_launcher(context: Context, launcher: str) -> None:
    assert chosen(context) == f"launcher {launcher}"


def test_a_launcher_that_was_asked_for() -> None:
    assert chosen(LOGIN, launcher="guest") == "launcher guest"
    assert chosen(replace(LOGIN, configuration=None), launcher="srun") == "launcher srun"
    assert chosen(LOGIN, STRANGE, launcher="mpirun", mpi="none") == "launcher mpirun"


@pytest.mark.parametrize(
    ("context", "image", "given", "message", "hint"),
    [
        (LAPTOP, OMPI4, {"launcher": "srun"}, "no srun in PATH", "try --ch-launcher=guest"),
        (LAPTOP, PLAIN, {"launcher": "guest"}, "the image has no mpirun", ""),
        (
            LOGIN,
            STRANGE,
            {"launcher": "mpirun"},
            "/usr/bin/mpirun is Open MPI 4.1.4, which can't start the ranks of an MPI we have no desc",
            "--ch-launcher=srun",
        ),
        (
            replace(LOGIN, starter=OPEN_MPI_5),
            OMPI4,
            {"launcher": "mpirun"},
            "is Open MPI 5.0.7, which can't start the ranks of Open MPI 4.1.4",
            "try --ch-launcher=srun or --ch-launcher=guest",
        ),
        (
            replace(MPIRUN, nodes=2),
            OMPI5,
            {"launcher": "mpirun"},
            "which can start Open MPI 5.0.7 on one node only",
            "try --ch-launcher=guest",
        ),
        (LAPTOP, BOTH, {"launcher": "guest"}, "several MPIs (Open MPI 4.1.4 and MPICH 5.0.2)", ""),
        (
            LAPTOP,
            PLAIN,
            {},
            "nothing here can launch: there is no srun in PATH; there is no mpirun",
            "take an image",
        ),
        (replace(LOGIN, place="step", world=4), OMPI4, {}, "one rank of 4", "start ch-launch once"),
    ],
)
def test_launchers_that_can_not(
    context: Context, image: Image, given: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        planned(request_for(**given), context, image)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_launcher_that_a_file_names_does_not_make_many_jobs_of_one() -> None:
    rank = replace(LOGIN, place="step", world=4)
    with pytest.raises(RefusedError, match="this is one rank of 4"):
        planned(request_for(at=SLURM_PMIX), rank, OMPI4, at=SLURM_PMIX)
    made = planned(request_for(at=SLURM_PMIX, launcher="srun"), rank, OMPI4, at=SLURM_PMIX)
    assert made.argv[0] == "srun"


def mpi_words(request: Request, context: Context, image: Image, offer: Offer | None = DEBIAN) -> list[str]:
    """Return the --mpi= words of a plan."""
    return [word for word in planned(request, context, image, offer).argv if word.startswith("--mpi")]


def test_which_wire_up() -> None:
    assert mpi_words(request_for(), LOGIN, OMPI4) == ["--mpi=pmix"]
    assert mpi_words(request_for(), LOGIN, OMPI4, Offer(("pmix_v4", "none", "pmix_v5"), "")) == [
        "--mpi=pmix_v5"
    ]
    assert mpi_words(request_for(), LOGIN, MPICH5) == ["--mpi=pmi2"]
    assert mpi_words(request_for(mpi="pmix_v4"), LOGIN, OMPI4, None) == ["--mpi=pmix_v4"]
    assert mpi_words(request_for("--mpi=list"), LOGIN, OMPI4, None) == ["--mpi=list"]
    assert mpi_words(request_for(), LOGIN, PLAIN, None) == []
    asked_by_variable = replace(LOGIN, mpi_type="pmix_v4")
    assert mpi_words(request_for(), asked_by_variable, OMPI4, None) == []
    assert mpi_words(request_for(mpi="auto"), asked_by_variable, OMPI4) == ["--mpi=pmix"]


def test_whatever_a_program_without_mpi_is_given_is_good() -> None:
    plain = replace(OMPI5, plain=True, command="/bin/true")
    assert mpi_words(request_for("--mpi=none"), LOGIN, plain, None) == ["--mpi=none"]
    assert mpi_words(request_for(), LOGIN, plain, WITHOUT_PMIX) == []
    assert mpi_words(request_for(), LOGIN, plain, DEBIAN) == ["--mpi=pmix"]


@pytest.mark.parametrize(
    ("words", "given", "image"),
    [
        (("--mpi=none",), {}, OMPI5),
        (("--mpi", "pmi2"), {}, OMPI5),
        ((), {"mpi": "pmi2"}, OMPI4),
        (("--mpi=pmix",), {}, MPICH5),
        (("--mpi=none",), {}, BOTH),
    ],
)
def test_what_would_give_singletons_is_refused(
    words: tuple[str, ...], given: dict[str, Any], image: Image
) -> None:
    with pytest.raises(RefusedError, match="each rank would be a world of its own") as caught:
        planned(request_for(*words, **given), LOGIN, image, None)
    assert "and what fits is chosen" in caught.value.hint
    asked = given.get("mpi") or words[-1].removeprefix("--mpi=")
    assert f"--ch-mpi=force:{asked} insists" in caught.value.hint
    forced = mpi_words(request_for(*words, mpi=f"force:{asked}"), LOGIN, image, None)
    assert forced == ([word for word in words if word.startswith("--mpi")] or [f"--mpi={asked}"])
    assert mpi_words(request_for(mpi="none"), LOGIN, image, None) == ["--mpi=none"]


def test_a_variable_that_does_not_fit_is_overruled_and_said() -> None:
    made = planned(request_for(), replace(LOGIN, mpi_type="none"), OMPI5)
    assert "--mpi=pmix" in made.argv
    assert made.notes == (
        "SLURM_MPI_TYPE is none, which Open MPI 5.0.7 does not speak; --ch-mpi=force:none insists on it",
    )


def test_two_mpis() -> None:
    with pytest.raises(RefusedError, match="the command does not tell which it uses") as caught:
        planned(request_for(), LOGIN, BOTH)
    assert caught.value.hint.startswith(
        "say --ch-mpi=pmix for Open MPI 4.1.4, or --ch-mpi=pmi2 for MPICH 5.0.2;"
    )
    assert mpi_words(request_for(mpi="pmi2"), LOGIN, BOTH, None) == ["--mpi=pmi2"]
    alike = replace(BOTH, mpis=OMPI4.mpis + OMPI5.mpis)
    assert mpi_words(request_for(), LOGIN, alike) == ["--mpi=pmix"]


def with_pmix(version: str, *features: str) -> Image:
    """Return an image whose Open MPI has this PMIx."""
    return replace(OMPI4, parts=(part("pmix", version, *features),))


SERVERS = {version: Offer(("none", f"pmix_v{version}", "pmix"), "", "24.11.5") for version in (3, 4, 5)}


@pytest.mark.parametrize(
    ("client", "server", "refused"),
    [
        ("1.2.4", 3, False),
        ("1.2.4", 4, True),
        ("2.0.1", 3, True),
        ("2.1.4", 5, False),
        ("5.0.7", 5, False),
        ("5.0.8", 5, True),
        ("5.0.8", 4, False),
        ("", 5, False),
    ],
)
def test_a_pmix_that_a_server_does_not_accept(client: str, server: int, refused: bool) -> None:  # noqa: FBT001
    if not refused:
        assert mpi_words(request_for(), LOGIN, with_pmix(client), SERVERS[server]) == ["--mpi=pmix"]
        return
    with pytest.raises(RefusedError, match=f"with PMIx {client}, and pmix") as caught:
        planned(request_for(), LOGIN, with_pmix(client), SERVERS[server])
    assert "rebuild it with a newer PMIx" in caught.value.hint


@pytest.mark.parametrize(
    ("client", "asks"), [("5.0.7", False), ("5.0.8", True), ("4.2.2", False), ("", False)]
)
def test_slurms_version_is_asked_only_if_it_matters(client: str, asks: bool) -> None:  # noqa: FBT001
    assert wireup.asks_version(with_pmix(client)) == asks


def test_a_chosen_pmix_is_asked_for_its_version() -> None:
    image, request = with_pmix("5.0.8", "munge"), request_for("--mpi=pmix", private_tmp=True)
    assert needs_offer(request, LOGIN, image)
    with pytest.raises(RefusedError, match=r"clients of 5\.0\.8 and 5\.0\.9 hang"):
        planned(request, LOGIN, image, SERVERS[5])
    assert told(planned(request, LOGIN, image, SERVERS[4])) == {}
    newer = with_pmix("5.0.10", "munge")
    assert told(planned(request, LOGIN, newer, SERVERS[5])) == {"PMIX_MCA_gds": "hash"}
    assert planned(request_for("--mpi=pmix", mpi="force:pmix"), LOGIN, image, SERVERS[5]).argv
    assert not needs_offer(request_for("--mpi=pmix"), LOGIN, replace(OMPI4, parts=()))


def test_an_mpirun_must_be_good_for_all_that_may_be_meant() -> None:
    with pytest.raises(RefusedError, match="which can't start the ranks of MPICH 5"):
        planned(request_for(launcher="mpirun"), MPIRUN, BOTH)
    elsewhere = replace(MPIRUN, nodes=0)  # of another batch system
    with pytest.raises(RefusedError, match="on one node only"):
        planned(request_for(launcher="mpirun"), elsewhere, OMPI5)


def test_an_mpi_without_a_description_is_no_reason_for_singletons() -> None:
    with pytest.raises(RefusedError, match="each rank would be a world of its own"):
        planned(request_for("--mpi=none"), LOGIN, STRANGE, None)
    assert mpi_words(request_for("--mpi=pmix"), LOGIN, STRANGE, None) == ["--mpi=pmix"]


def told(made: Plan) -> dict[str, str]:
    """Return the variables that a plan sets where nobody has."""
    defaults = [
        word.removeprefix("--env-default=") for word in made.argv if word.startswith("--env-default=")
    ]
    return dict(word.split("=", 1) for word in defaults)


def test_what_pmix_is_told() -> None:
    def psec_and_gds(
        image: Image, offer: Offer = DEBIAN, context: Context = LOGIN, **given: Any
    ) -> dict[str, str]:
        found = told(planned(request_for(**given), context, image, offer))
        return {name: value for name, value in found.items() if name.startswith("PMIX_MCA_")}

    assert psec_and_gds(with_pmix("4.2.2", "munge")) == {}
    assert psec_and_gds(with_pmix("5.0.11")) == {"PMIX_MCA_psec": "native"}
    assert psec_and_gds(with_pmix("2.2.3", "munge")) == {"PMIX_MCA_gds": "hash"}
    for server, hidden in ((4, False), (5, True)):
        wanted = {"PMIX_MCA_gds": "hash"} if hidden else {}
        image, offer = with_pmix("5.0.7", "munge"), SERVERS[server]
        assert psec_and_gds(image, offer, private_tmp=True) == wanted
        assert psec_and_gds(image, offer, replace(LOGIN, tmpdir="/scratch/t")) == wanted
        assert psec_and_gds(image, offer, replace(LOGIN, job_tmp=True)) == wanted
        assert psec_and_gds(image, offer, replace(LOGIN, tmpdir="/tmp")) == {}


def test_separate_ranks() -> None:
    assert told(planned(request_for(join=False), LOGIN, OMPI4)) == {
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
        "UCX_TLS": "^cma",
        "UCX_POSIX_USE_PROC_LINK": "n",
        "PSM2_KASSIST_MODE": "none",
    }
    assert told(planned(request_for(join=False), LOGIN, MPICH5)) == {
        "MPIR_CVAR_CH4_CMA_ENABLE": "0",
        "UCX_POSIX_USE_PROC_LINK": "n",
    }
    unread = replace(OMPI4, mpis=(part("openmpi", ""),), parts=())
    assert set(told(planned(request_for(join=False), LOGIN, unread))) == {
        "OMPI_MCA_btl_vader_single_copy_mechanism",
        "OMPI_MCA_smsc",
    }
    assert told(planned(request_for(), LOGIN, OMPI4)) == {}


def test_what_can_not_go_well_is_refused() -> None:
    old = Image("/images/mpich4", (part("mpich", "4.0.2", "ucx"),), (part("ucx", "1.13.1"),))
    with pytest.raises(
        RefusedError, match=r"MPICH 4\.0\.2, ranks not joined: they would talk by way of TCP"
    ) as caught:
        planned(request_for(join=False), LOGIN, old)
    assert caught.value.hint.startswith(
        "leave out --ch-no-join, or take MPICH 4.2 or later; --ch-mpi=force:pmi2"
    )
    assert planned(request_for(join=False, mpi="force:pmi2"), LOGIN, old, None).argv
    assert planned(request_for(), LOGIN, old).argv
    assert planned(request_for(join=False), LOGIN, replace(old, mpis=(part("mpich", "4.0.2"),))).argv
    assert planned(request_for(join=False), LOGIN, replace(old, plain=True)).argv


def test_what_somebody_said_of_a_variable_is_left_alone() -> None:
    name = "OMPI_MCA_btl_vader_single_copy_mechanism"
    site_says = options.from_document(
        Document("site.toml", {"options": {"env-default": [f"{name}=emulated"]}}), options.SITE
    )
    request = Request(
        options.merge(*OURS.layers, site_says, options.from_command_line({"join": False})), (), ("x",)
    )
    made = planned(request, LOGIN, OMPI4)
    assert told(made)[name] == "emulated"
    (row,) = [row for row in made.reasons if row.value.startswith(f"{name} left to")]
    assert "flavours/openmpi.toml" in row.reason
    assert row.origin == "site.toml:1"
    assert name not in told(planned(request_for(join=False, unset_env=("OMPI_MCA_btl_*",)), LOGIN, OMPI4))


def site_with(text: str, tmp_path: Path) -> Site:
    """Return the site whose file holds text."""
    file = tmp_path / "site.toml"
    file.write_text(text)
    return site.load({}, str(file))


def test_a_site_that_contradicts_a_flavour_wins_and_both_are_named(tmp_path: Path) -> None:
    name = "OMPI_MCA_btl_vader_single_copy_mechanism"
    row = f"[[variable]]\nname = '{name}'\nvalue = 'emulated'\nreason = 'measured here'\n"
    at = site_with(row, tmp_path)
    made = planned(request_for(join=False, at=at), LOGIN, OMPI4, at=at)
    assert told(made)[name] == "emulated"
    assert Row(f"env-default {name}=emulated", "measured here", f"{tmp_path}/site.toml:1") in made.reasons
    (left,) = [row for row in made.reasons if row.value.startswith(f"{name} left to")]
    assert left.value == f"{name} left to {name}=emulated"
    assert re.match(rf"flavours/openmpi\.toml:\d+ would have said {name}=none: ", left.reason)
    assert left.origin == f"{tmp_path}/site.toml:1"


def test_of_two_equals_the_later_is_named(tmp_path: Path) -> None:
    row = "[options]\nenv-default = ['UCX_TLS={}']\n"
    base = tmp_path / "base.toml"
    base.write_text(row.format("rc"))
    at = site_with(
        f"base = ['{base}']\n{row.format('ud')}set-env = ['UCX_POSIX_USE_PROC_LINK=y']\n", tmp_path
    )
    made = planned(request_for(join=False, at=at), LOGIN, OMPI4, at=at)
    assert told(made)["UCX_TLS"] == "ud"
    left = {row.value: row.origin for row in made.reasons if " left to " in row.value}
    assert left == {
        "UCX_TLS left to UCX_TLS=ud": f"{tmp_path}/site.toml:3",
        "UCX_POSIX_USE_PROC_LINK left to UCX_POSIX_USE_PROC_LINK=y": f"{tmp_path}/site.toml:4",
    }


def test_a_user_that_contradicts_a_site_wins(tmp_path: Path) -> None:
    at = site_with("[[variable]]\nname = 'UCX_TLS'\nvalue = 'rc'\nreason = 'r'\n", tmp_path)
    made = planned(request_for(join=False, at=at, env_default=("UCX_TLS=tcp",)), LOGIN, OMPI4, at=at)
    assert told(made)["UCX_TLS"] == "tcp"
    assert sum("UCX_TLS=" in word for word in made.argv) == 1
    (left,) = [row for row in made.reasons if row.value.startswith("UCX_TLS left to")]
    assert (left.value, left.origin) == ("UCX_TLS left to UCX_TLS=tcp", "command line (--ch-env-default)")
    words = planned(request_for(at=at, unset_env=("UCX_*",)), LOGIN, OMPI4, at=at).argv
    assert words.index("--env-default=UCX_TLS=rc") < words.index("--unset-env=UCX_*")


def test_a_site_can_overrule_the_environment(tmp_path: Path) -> None:
    text = "[[variable]]\nname = 'A'\nvalue = '1'\nreason = 'r'\n[[unset]]\nvariable = 'A'\nreason = 'r'\n"
    at = site_with(text, tmp_path)
    words = planned(request_for(at=at, env=("A=2",)), LOGIN, OMPI5, at=at).argv
    order = [words.index(word) for word in ("--unset-env=A", "--env-default=A=1", "--env=A=2")]
    assert order == sorted(order)


def test_a_default_of_the_site_does_not_hide_what_the_environment_says(tmp_path: Path) -> None:
    name = "OMPI_MCA_btl_vader_single_copy_mechanism"
    row = f"[[variable]]\nname = '{name}'\nvalue = '{{}}'\nreason = 'r'\n"
    for value, mine, noted in (
        ("none", "cma", "environment"),
        ("cma", "none", ""),
        ("cma", "", "site.toml:1"),
    ):
        at = site_with(row.format(value), tmp_path)
        context = replace(LOGIN, variables={name: mine} if mine else {})
        notes = planned(request_for(join=False, at=at), context, OMPI4, at=at).notes
        assert [note for note in notes if name in note and noted in note] == [*notes][: bool(noted)]


def test_a_sites_bind(tmp_path: Path) -> None:
    at = site_with("[[bind]]\npath = '$LOCAL'\ntarget = '/local'\nreason = 'the disk'\n", tmp_path)
    made = planned(request_for(at=at), LOGIN, OMPI5, at=at)
    assert "--bind-try=$LOCAL:/local" in made.argv
    assert Row("bind-try $LOCAL:/local", "the disk", f"{tmp_path}/site.toml:1") in made.reasons


def test_what_a_user_had_better_not_have_said_is_noted() -> None:
    name = "OMPI_MCA_btl_vader_single_copy_mechanism"
    mine = replace(LOGIN, variables={name: "cma"})
    (note,) = planned(request_for(join=False), mine, OMPI4).notes
    assert note.startswith(f"{name}=cma (environment): asked for by name")
    (note,) = planned(request_for(join=False, set_env=(f"{name}=cma",)), LOGIN, OMPI4).notes
    assert "(command line (--ch-set-env))" in note
    for request, context in (
        (request_for(), mine),
        (request_for(join=False, set_env=(f"{name}=none",)), mine),
    ):
        assert planned(request, context, OMPI4).notes == ()


def test_ids_that_pmix_would_not_know() -> None:
    here = replace(LOGIN, uid=1001, gid=1001)
    with pytest.raises(RefusedError, match="--ch-uid and --ch-gid don't go with --mpi=pmix"):
        planned(request_for(uid="0"), here, OMPI4)
    assert "--uid=1001" in planned(request_for(uid="1001"), here, OMPI4).argv
    assert "--uid=0" in planned(request_for(uid="0", mpi="force:pmix"), here, OMPI4, None).argv
    assert "--uid=0" in planned(request_for(uid="0"), here, MPICH5).argv


def test_an_mpi_that_can_not_be_seen() -> None:
    for request, context, noted in (
        (request_for(), LOGIN, True),
        (request_for(mpi="none"), LOGIN, False),
        (request_for(mpi="pmix"), LOGIN, False),
        (request_for("--mpi=pmix"), LOGIN, False),
        (request_for(), replace(LOGIN, mpi_type="pmix"), False),
        (request_for(), MPIRUN, False),
    ):
        notes = planned(request, context, SQUASHFS, None).notes
        assert ("which MPI is in a SquashFS file can't be seen" in "".join(notes)) is noted
    with pytest.raises(RefusedError, match="may have an mpirun or not: it is a SquashFS file") as caught:
        planned(request_for(), LAPTOP, SQUASHFS)
    assert caught.value.hint == "if the image has an mpirun, --ch-launcher=guest uses it"


def test_nothing_fits() -> None:
    with pytest.raises(RefusedError) as caught:
        planned(request_for(), LOGIN, OMPI4, WITHOUT_PMIX)
    assert caught.value.message == (
        "the image speaks Open MPI 4.1.4, which needs --mpi=pmix; this srun offers none, pmi2"
    )
    assert "--ch-launcher=guest" in caught.value.hint
    with pytest.raises(
        RefusedError, match=r"no description of \(libmpich\.so\.12\); this srun offers none, pmi2"
    ):
        planned(request_for(), LOGIN, STRANGE, WITHOUT_PMIX)


def inside(request: Request, context: Context, image: Image = PLAIN) -> list[str]:
    """Return the --bind and --cd words of a plan."""
    words = planned(request, context, image, None).argv
    return [word for word in words if word.startswith(("--bind", "--cd"))]


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("/home/alice", ["--cd-try=/home/alice"]),
        ("/home/alice/run", ["--cd-try=/home/alice/run"]),
        ("/home/alice2", ["--bind-try=/home/alice2", "--cd-try=/home/alice2"]),
        ("/scratch/x", ["--bind-try=/scratch/x", "--cd-try=/scratch/x"]),
        ("/var/tmp/x", ["--bind-try=/var/tmp/x", "--cd-try=/var/tmp/x"]),
        ("/tmp/x", ["--cd-try=/tmp/x"]),
        ("/usr/share", ["--cd-try=/usr/share"]),
        ("/opt", ["--cd-try=/opt"]),
        ("/optional", ["--bind-try=/optional", "--cd-try=/optional"]),
        ("/a:b", ["--cd-try=/a:b"]),
        ("/", []),
        (None, []),
    ],
)
def test_the_working_directory(directory: str | None, words: list[str]) -> None:
    assert inside(request_for(), replace(LOGIN, directory=directory)) == ["--bind-try=/home/alice", *words]


def test_directories_of_the_launchers_own_words() -> None:
    assert inside(request_for("--chdir=/d"), LOGIN)[-1] == "--cd-try=/d"
    assert inside(request_for("-D", "sub"), LOGIN)[-1] == "--cd-try=/scratch/alice/run/sub"
    assert inside(request_for("-wdir", "/d", launcher="guest"), LAPTOP, OMPI4)[-1] == "--cd-try=/d"
    assert inside(request_for("-D", "/d", cd="/c"), LOGIN)[-1] == "--cd=/c"


def test_homes() -> None:
    for directory in ("/home/alice", "/home"):
        assert inside(request_for(home=False), replace(LOGIN, directory=directory)) == [
            f"--cd-try={directory}"
        ]
    below = inside(request_for(home=False), replace(LOGIN, directory="/home/alice/run"))
    assert below == ["--bind-try=/home/alice/run", "--cd-try=/home/alice/run"]
    argv = planned(request_for(home=True), replace(LOGIN, directory="/"), PLAIN, None).argv
    assert "--home" in argv
    assert not [word for word in argv if word.startswith(("--bind", "--set-env=HOME"))]
    assert inside(request_for(), replace(LOGIN, home=None, directory="/")) == []


def test_file_systems_of_the_site() -> None:
    rows = tuple(Row(path, "r", "site.toml:1") for path in ("/home", "/scratch"))
    ours = replace(OURS, filesystems=rows)
    argv = plan(request_for(bind=("/other:/home",)), LOGIN, ours, PLAIN, None).argv
    assert [word for word in argv if word.startswith("--bind")] == [
        "--bind-try=/scratch",
        "--bind-try=/home/alice",
        "--bind=/other:/home",
    ]


def test_a_tmpdir_in_tmp_needs_no_bind() -> None:
    for tmpdir, wanted in ((None, True), ("/scratch/t", True), ("/tmp", False), ("/tmp/t", False)):
        words = inside(request_for("-np", "2"), replace(MPIRUN, tmpdir=tmpdir), OMPI4)
        assert ("--bind-try=$TMPDIR" in words) is wanted


def test_an_unknown_release_is_told_nothing_that_is_not_for_all() -> None:
    unread = replace(OMPI4, mpis=(part("openmpi", ""),))
    assert told(planned(request_for("-n2"), LAPTOP, unread, None)) == {}


SITE_FAKES = options.from_document(Document("site.toml", {"options": {"write-fake": "1g"}}), options.SITE)
SITE_SCOPE = options.from_document(
    Document("site.toml", {"options": {"write-fake-scope": "rank"}}), options.SITE
)


@pytest.mark.parametrize(
    ("layer", "given", "words"),
    [
        ({}, {}, []),
        ({}, {"write": True}, ["--write"]),
        ({}, {"write_fake": "9m"}, ["--write-fake=9m"]),
        ({}, {"write_fake_scope": "node"}, ["--write-fake=12%"]),
        ({}, {"write_fake_scope": "rank"}, ["--write-fake=12%", "--write-fake-scope=rank"]),
        (SITE_FAKES, {}, ["--write-fake=1g"]),
        (SITE_FAKES, {"write": True}, ["--write"]),
        (SITE_FAKES, {"write_fake": "no"}, []),
        (SITE_FAKES, {"write_fake_scope": "rank"}, ["--write-fake=1g", "--write-fake-scope=rank"]),
        (SITE_SCOPE, {"write_fake": "no"}, []),
        (SITE_SCOPE, {"write_fake": "9m"}, ["--write-fake=9m", "--write-fake-scope=rank"]),
    ],
)
def test_writing(layer: dict[str, Any], given: dict[str, Any], words: list[str]) -> None:
    said = options.from_command_line({name.replace("_", "-"): value for name, value in given.items()})
    request = Request(options.merge(*OURS.layers, layer, said), (), ("x",))
    argv = planned(request, LOGIN, PLAIN, None).argv
    assert [word for word in argv if word.startswith("--write")] == words


def test_writing_that_can_not_be() -> None:
    for name, value in (("write_fake", "9m"), ("write_fake_scope", "rank")):
        given: dict[str, Any] = {name: value}
        with pytest.raises(UsageError, match="--ch-write and --ch-write-fake exclude each other"):
            planned(request_for(write=True, **given), LOGIN, PLAIN, None)
    for image in (SQUASHFS, STORED):
        with pytest.raises(ImageError, match=f"can't write to {image.unseen}: {image.path}"):
            planned(request_for(write=True), LOGIN, image, None)


def test_a_private_tmp_hides_a_working_directory_in_tmp() -> None:
    for private, value in ((True, "working directory not bound"), (None, "working directory visible")):
        made = planned(request_for(private_tmp=private), replace(LOGIN, directory="/tmp/x"), PLAIN, None)
        assert [row.value for row in made.reasons if row.value.startswith("working")] == [value]
        assert ("--private-tmp" in made.argv) is bool(private)


def test_an_mpi_that_needs_the_hosts_tmp() -> None:
    for context, image, noted in (
        (MPIRUN, OMPI4, True),
        (replace(MPIRUN, tmpdir="/tmp/t"), OMPI4, True),
        (replace(MPIRUN, tmpdir="/scratch/t"), OMPI4, False),
        (MPIRUN, PLAIN, False),
        (LOGIN, OMPI4, False),
        (LAPTOP, OMPI4, False),
    ):
        notes = planned(request_for(private_tmp=True), context, image).notes
        assert ("mpirun keeps the directories of its sessions there" in "".join(notes)) is noted
    assert planned(request_for(), MPIRUN, OMPI4).notes == ()


def test_the_users_binds() -> None:
    twins = options.from_environment({"CHLAUNCH_BIND": "/a", "CHLAUNCH_BIND_RO": "/b"})
    said = options.from_command_line({"bind-ro": ("c:/a",), "bind-try": ("$D", "/e:/b")})
    request = Request(options.merge(*OURS.layers, twins, said), (), ("x",))
    here = replace(LOGIN, home=None, directory="/")
    assert [word for word in planned(request, here, PLAIN, None).argv if word.startswith("--bind")] == [
        "--bind-try=$D",
        "--bind-try=/e:/b",
        "--bind-ro=/c:/a",
    ]
    assert inside(request_for(bind_try=("/scratch",)), LOGIN)[1:3] == [
        "--bind-try=/scratch/alice/run",
        "--bind-try=/scratch",
    ]
    assert inside(request_for(bind_ro=("/scratch",)), LOGIN)[1:2] == ["--bind-ro=/scratch"]


def test_the_users_variables_come_last_and_the_strongest_of_them_at_the_very_end() -> None:
    said = options.from_command_line({"unset-env": ("A",), "set-env": ("B=1",)})
    twins = options.from_environment({"CHLAUNCH_SET_ENV": "A=2"})
    request = Request(options.merge(*OURS.layers, twins, said), (), ("x",))
    argv = planned(request, LOGIN, OMPI5).argv
    assert [word for word in argv if "env" in word and "image" not in word][-3:] == [
        "--set-env=A=2",
        "--unset-env=A",
        "--set-env=B=1",
    ]


def test_planning_is_total() -> None:
    """Every combination gives a plan or a refusal."""
    for context in (LAPTOP, MPIRUN, LOGIN, replace(LOGIN, place="step", world=2), Context("/ch-run")):
        for image in (OMPI4, OMPI5, MPICH5, BOTH, PLAIN, STRANGE, SQUASHFS, STORED):
            for launcher in ("auto", "srun", "mpirun", "guest"):
                for mpi in ("auto", "none", "pmix"):
                    for offer in (DEBIAN, WITHOUT_PMIX, None):
                        request = request_for("-n2", launcher=launcher, mpi=mpi)
                        try:
                            made = planned(request, context, image, offer)
                        except RefusedError:
                            continue
                        assert "/ch-run" in " ".join(made.argv)
                        assert made.argv[-2:] == ("./a.out", "in put")
                        assert all(row.value and row.reason and row.origin for row in made.reasons)
