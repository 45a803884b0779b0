-- Slurm's cli_filter: turns the classic mistakes with containers into a message before the job queues.
--
-- What: refused, with one line that says why and one that says what to type, are
--   * --container=X where nothing would read it: Slurm then runs the command outside any container and says nothing;
--   * --container, --ch-image or `srun ch-run` of an image that does not exist;
--   * --container of more than one task a node, and of what is no bundle, where Slurm can't do that (oci.conf).
-- A word of advice, and no more, is given for
--   * `srun -n4 ch-run` with neither --mpi nor MpiDefault: an MPI program would run as four jobs of one rank;
--   * `srun -n4 --mpi=pmix ch-run` without --join: the ranks would not share memory, or hang;
--   * `srun -n4 ch-run IMAGE -- mpirun …`: four mpiruns.
-- What an image holds it does not look at: ch-launch and the SPANK plugin do. CHLAUNCH_NO_HINTS=1 silences the advice.
--
-- Works alone: it needs neither the SPANK plugin nor oci.conf, and knows by itself which of them the site has. To
-- install, copy it beside slurm.conf as cli_filter.lua on the hosts where users submit, and add to slurm.conf
--     CliFilterPlugins=lua
-- (no daemon is restarted; Debian has the plugin in slurm-wlm-basic-plugins). A site with a cli_filter.lua of its own
-- copies this to chlaunch.lua beside it, and begins its own with
--     local chlaunch = dofile("/etc/slurm/chlaunch.lua")
-- whose chlaunch.check(options) is false where slurm_cli_pre_submit should return slurm.ERROR.
--
-- It runs as the user, in srun, sbatch and salloc: it protects users from mistakes, and the site from nothing. An
-- error in it lets the job pass.

-- Name of the SPANK plugin, as in its SPANK_PLUGIN().
local PLUGIN = "chlaunch"

-- What paths of images begin with that only compute nodes have: not looked for here. {"/scratch/local/"}
local ELSEWHERE = {}

local LAUNCHERS = { mpirun = true, mpiexec = true, ["mpiexec.hydra"] = true, orterun = true, prterun = true }

local ENOENT, ENOTDIR = 2, 20 -- errno(3), the same on every Linux that Slurm runs on

-- What there is to say about one command line: refusals are errors.
local function refuse(problem, remedy)
  slurm.log_error("%s", problem)
  slurm.log_error("%s", remedy)
  return false
end

local function advise(problem, remedy)
  slurm.log_info("%s", "hint: " .. problem .. ": " .. remedy)
end

local function basename(path)
  return path:match("([^/]*)$")
end

-- False only if there is surely nothing: what may not be looked at may be there.
local function exists(path)
  local file, _, number = io.open(path)
  if file then
    file:close()
  end
  return file ~= nil or (number ~= ENOENT and number ~= ENOTDIR)
end

-- Text of a file that lies beside slurm.conf, nil if there is none.
local function configuration(name)
  local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
  local conf = os.getenv("SLURM_CONF")
  for _, directory in ipairs({ conf and conf:match("^(.*)/[^/]*$") or here or "/etc/slurm", "/run/slurm/conf" }) do
    local file = io.open(directory .. "/" .. name)
    if file then
      local text = file:read("*a")
      file:close()
      return text
    end
  end
end

-- Value of KEY=VALUE in a file of Slurm's, in lower case; keys have no case.
local function value_of(text, key)
  for line in text:lower():gmatch("[^\r\n]+") do
    local value = line:match("^%s*" .. key:lower() .. '%s*=%s*"?([^%s"#]+)')
    if value then
      return value
    end
  end
end

-- An option as it was given, nil if it was not.
local function given(options, name)
  local value = options[name]
  if value ~= nil and value ~= "" and value ~= "unset" and value ~= "invalid-context" then
    return value
  end
end

local function number(options, name)
  local value = tonumber((given(options, name) or ""):match("^%d+"))
  return value and value > 0 and value < 0x7fffffff and value or nil -- Slurm's "not given" are huge, or negative
end

-- The options of our SPANK plugin, nil where it is not loaded.
local function plugin_options(options)
  return options.spank and options.spank[PLUGIN]
end

-- Is there an image of that name in the user's storage? `/` is written `%` there, and `:` `+`.
local function stored(name, storage)
  storage = storage or os.getenv("CH_IMAGE_STORAGE") or ("/var/tmp/" .. (os.getenv("USER") or "") .. ".ch")
  return exists(storage .. "/images/" .. name:gsub("/", "%%"):gsub(":", "+"))
end

-- Does an image word mean anything? As in ch-run(1) and ch-launch(1): a path, a name in storage, or of a registry.
local function image_found(word, storage)
  for _, prefix in ipairs(ELSEWHERE) do
    if word:sub(1, #prefix) == prefix then
      return true
    end
  end
  local first = word:match("^([^/]+)/")
  local remote = word:match("^%a+://") or (first and (first:match("[^.][.:]") or first == "localhost"))
  return remote or exists(word) or (not word:match("^%.?%.?/") and stored(word, storage))
end

local function check_image(option, word, storage)
  if image_found(word, storage) then
    return true
  end
  local where = word:find("/") and "" or ", and ch-image's storage has no image of that name"
  return refuse(
    ("%s%s: no such file or directory%s"):format(option, word, where),
    "give the path of an image as this host sees it, or a name that `ch-image list` shows"
  )
end

-- --container where Slurm itself runs containers.
local function check_bundle(options, word, oci)
  if not exists(word) then
    return refuse(("--container=%s: no such file or directory"):format(word), "give the path of a container's bundle")
  end
  if value_of(oci, "IgnoreFileConfigJson") == "true" then -- since 23.02, in the job's directory
    return true
  end
  if not word:match("^/") then -- measured with 22.05: "Task launch failed: No such file or directory"
    return refuse(
      ("--container=%s: Slurm looks for it in slurmd's directory, not in yours"):format(word),
      ("give its absolute path: --container=%s/%s"):format(os.getenv("PWD") or "", word)
    )
  end
  if not value_of(oci, "ContainerPath") and not exists(word .. "/config.json") then
    return refuse(
      ("--container=%s: no bundle, there is no config.json in it"):format(word),
      "make one with plugins/oci-ch-run --bundle, or run the image itself: ch-launch IMAGE -- COMMAND"
    )
  end
  local old = oci:find("oci-ch-run", 1, true)
  if old and options.type == "sbatch" then
    return refuse(
      ("--container=%s: this release of Slurm starts no script in a container"):format(word),
      "leave --container out here, and give it to the script's srun lines"
    )
  end
  local tasks, nodes, each = number(options, "ntasks"), number(options, "nodes"), number(options, "ntasks-per-node")
  if old and ((each or 1) > 1 or (tasks or 1) > (nodes or 1)) then
    return refuse(
      ("--container=%s: this release of Slurm can start one task a node in a container"):format(word),
      "say -N for as many nodes as tasks, or use ch-launch: ch-launch -n TASKS IMAGE -- COMMAND"
    )
  end
  return true
end

local function check_container(options)
  local word = given(options, "container")
  local oci = configuration("oci.conf")
  if not word then
    return true
  end
  if oci then
    return check_bundle(options, word, oci)
  end
  local ours = plugin_options(options)
  if ours then
    return check_image("--container=", word, ours["ch-storage"])
  end
  return refuse(
    ("--container=%s: Slurm runs no containers here, the command would run outside"):format(word),
    "type instead: ch-launch [srun's options] IMAGE -- COMMAND (an administrator can add oci.conf or chlaunch's plugin)"
  )
end

local function check_ch_image(options)
  local ours = plugin_options(options)
  local word = ours and ours["ch-image"]
  if not word or word == "none" or word == "unset" then
    return true
  end
  return check_image("--ch-image=", word, ours["ch-storage"])
end

-- What a line that begins with ch-run says: words before and after `--`, nil for another line. A line of ch-launch or
-- of the plugin is theirs: all was considered.
local function ch_run_line(options)
  local line = { before = {}, command = {}, joined = false }
  local words = options.argv or {}
  if basename(words[1] or "") ~= "ch-run" then
    return nil
  end
  local part = line.before
  for i = 2, #words do
    local word = words[i]
    if word == "--" and part == line.before then
      part = line.command
    else
      part[#part + 1] = word
    end
    if part == line.before and word == "--unset-env=CHLAUNCH_*" then
      return nil
    end
    if part == line.before and (word:match("^%-%-jo") or word:match("^%-[jqtvwW]*j")) then
      line.joined = true
    end
  end
  return line
end

-- Tasks of one node, or of all, more than one of which makes an MPI job.
local function tasks_of(options)
  local each = number(options, "ntasks-per-node")
  return math.max(number(options, "ntasks") or 1, (each or 1) * (number(options, "nodes") or 1))
end

-- srun's --mpi, else what the site's default is; nil if that can't be read.
local function mpi_of(options)
  local conf = configuration("slurm.conf")
  return given(options, "mpi") or (conf and (value_of(conf, "MpiDefault") or "none"))
end

local function advise_ranks(options, line)
  local tasks, mpi = tasks_of(options), mpi_of(options)
  if tasks < 2 or os.getenv("CHLAUNCH_NO_HINTS") then
    return
  end
  if LAUNCHERS[basename(line.command[1] or "")] then
    advise(
      ("each of %d tasks would run %s"):format(tasks, line.command[1]),
      "srun starts the ranks itself: leave out " .. line.command[1]
    )
  elseif mpi == "none" and not given(options, "mpi") then
    advise(
      ("%d tasks without --mpi: an MPI program would run as %d jobs of one rank"):format(tasks, tasks),
      "add --mpi=pmix (see srun --mpi=list), or --mpi=none if it is none; ch-launch knows by itself"
    )
  elseif mpi and mpi:match("^pm") and not line.joined then
    advise(
      ("%d ranks, --mpi=%s and each in a container of its own"):format(tasks, mpi),
      "add --join to ch-run, or ranks of a node can't read each other's memory: slow, and some MPIs hang"
    )
  end
end

local function check_ch_run(options)
  local line = options.type == "srun" and ch_run_line(options)
  if not line then
    return true
  end
  local image = line.before[#line.before]
  -- A relative path is looked for in the directory of the task, which may be another.
  if #line.command > 0 and image and image:match("^/") and not check_image("ch-run ", image) then
    return false
  end
  advise_ranks(options, line)
  return true
end

local checks = { check_container, check_ch_image, check_ch_run }

-- False if the command line was refused.
local function check(options)
  for _, one in ipairs(checks) do
    local ran, passed = pcall(one, options)
    if not ran then
      slurm.log_debug("%s", "chlaunch: " .. tostring(passed))
    elseif not passed then
      return false
    end
  end
  return true
end

function slurm_cli_setup_defaults()
  return slurm.SUCCESS
end

function slurm_cli_pre_submit(options)
  return check(options) and slurm.SUCCESS or slurm.ERROR
end

function slurm_cli_post_submit()
  return slurm.SUCCESS
end

return { check = check }
