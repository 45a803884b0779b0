"""What a file of flavours/ may say: the schema, key by key."""

from chlaunch.launch.tables import Key, Section

_REASON = Key("reason", "text", "why", required=True)
_SOURCE = Key("source", "text", "where that can be read up, or was measured", required=True)
_LAUNCHERS = Key("launchers", "texts", "launchers it is for; default: all")
_PLUGINS = Key("plugins", "texts", "globs: values of srun's --mpi= it is for; default: all")
_VERSIONS = Key("versions", "text", "versions it is for, such as '>=4.0.2 <5'; default: all")
_SERVERS = Key("servers", "text", "versions of the PMIx server it is for; default: all")
_SHARING = Key("sharing", "text", "shared or separate: whether the ranks of a node share a user namespace")
_LACKS = Key("lacks", "text", "only where the library lacks this feature")

SECTIONS = (
    Section(
        "",
        repeated=False,
        keys=(
            Key("name", "text", "the file's name", required=True),
            Key("title", "text", "what people call it", required=True),
            Key("libraries", "texts", "globs for the names (sonames) of its library", required=True),
            Key("marks", "texts", "texts of which its library holds one; default: the name tells all"),
            Key("unless", "texts", "texts that its library does not hold"),
            Key("version", "texts", "expressions, best first: group 1 is its version, in its strings"),
            Key("mpi", "boolean", "it is an MPI"),
            Key("programs", "texts", "directories, or globs of such, where images keep its mpirun"),
            Key("mpirun", "texts", "names of its mpirun, best first"),
            Key("hydra", "boolean", "its mpirun is Hydra"),
        ),
        help="the library itself",
    ),
    Section(
        "feature",
        repeated=True,
        keys=(
            Key("name", "text", "what rows call it", required=True),
            Key("text", "text", "the library's file holds this", required=True),
            Key("file", "text", "or there is this file, a glob, below the library's directory"),
            _SOURCE,
        ),
        help="what some builds of it have",
    ),
    Section(
        "embeds",
        repeated=True,
        keys=(
            Key("name", "text", "the flavour that is built in", required=True),
            Key("version", "text", "its version", required=True),
            _VERSIONS,
            _SOURCE,
        ),
        help="what it brings with it where the image has no library of that",
    ),
    Section(
        "wire-up",
        repeated=True,
        keys=(
            Key("launcher", "text", "what can start its ranks", required=True),
            Key("plugin", "text", "with srun: the value for --mpi="),
            Key("hosts", "text", "with the host's mpirun: its versions"),
            Key("one-node", "boolean", "good on one node only"),
            Key("has", "text", "only where the library has this feature"),
            _VERSIONS,
            _REASON,
            _SOURCE,
        ),
        help="what can start its ranks, best first",
    ),
    Section(
        "bind",
        repeated=True,
        keys=(
            Key("path", "text", "path or $NAME, bound where it exists", required=True),
            _LAUNCHERS,
            _PLUGINS,
            _VERSIONS,
            _REASON,
            _SOURCE,
        ),
        help="what its ranks must see",
    ),
    Section(
        "variable",
        repeated=True,
        keys=(
            Key("name", "text", "variable, set unless it is set", required=True),
            Key("value", "text", "its value", required=True),
            _LAUNCHERS,
            _PLUGINS,
            _VERSIONS,
            _SERVERS,
            _SHARING,
            _LACKS,
            Key("tmp-hidden", "boolean", "only where the ranks do not see their node's /tmp"),
            _REASON,
            _SOURCE,
        ),
        help="what it must be told",
    ),
    Section(
        "conflict",
        repeated=True,
        keys=(
            Key("variable", "text", "a variable the user may have set", required=True),
            Key("value", "text", "glob: to this value", required=True),
            _VERSIONS,
            _SHARING,
            _REASON,
            _SOURCE,
        ),
        help="what a user had better not say",
    ),
    Section(
        "refusal",
        repeated=True,
        keys=(
            Key("has", "text", "only where the library has this feature", required=True),
            _VERSIONS,
            _SHARING,
            Key("remedy", "text", "what to do instead", required=True),
            _REASON,
            _SOURCE,
        ),
        help="what can't go well",
    ),
    Section(
        "server",
        repeated=True,
        keys=(
            Key("servers", "text", "versions of the PMIx server", required=True),
            Key("versions", "text", "versions of the library", required=True),
            Key("slurm", "text", "only under these versions of Slurm; default: all"),
            _REASON,
            _SOURCE,
        ),
        help="PMIx servers that it can't speak with",
    ),
)
