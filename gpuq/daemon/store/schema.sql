-- gpuq's memory, version 1.
--
-- One file, written by one process: the daemon. It reads as a document in three parts: what people
-- asked, what they wish meanwhile, and what happened. Handlers write the first two, the loop writes
-- the third; no column has two writers. Times named _at are seconds since the epoch on the wall
-- clock; times named _mono and _boottime are seconds on CLOCK_MONOTONIC and CLOCK_BOOTTIME and mean
-- something within one boot only.

-- ─── Asked ──────────────────────────────────────────────────────────────────────────────────────

-- An environment is kept once, however many jobs were submitted with it.
-- content: NAME=value records, each closed by a NUL, as in /proc/PID/environ.
create table environments (
  uid      integer not null,
  hash     blob    not null check (length(hash) = 32),
  content  blob    not null,
  primary key (uid, hash)
) without rowid;

-- What jobs that are interchangeable for the scheduler have in common. The group and the tags stand
-- here only where they have a limit of their own; group 0: it has none.
create table classes (
  id       integer primary key,
  uid      integer not null,
  queue    text    not null default '',
  request  text    not null check (json_valid(request)),
  group_id integer not null default 0,
  tags     text    not null default '[]' check (json_valid(tags)),
  unique (uid, queue, request, group_id, tags)
);

-- What to run. An array shares one row, however many elements it has.
create table specs (
  id           integer primary key,
  uid          integer not null,   -- who the kernel said was calling
  gid          integer not null,
  user         text    not null,
  name         text    not null,
  argv         blob    not null,   -- arguments, each closed by a NUL: any bytes but NUL
  cwd          blob    not null,
  umask        integer not null check (umask between 0 and 511),
  limits       text    not null default '{}' check (json_valid(limits)),  -- soft limits at submit
  hard_limits  text    not null default '{}' check (json_valid(hard_limits)),  -- as the kernel told
  environment  blob    not null,
  changes      blob    not null default x'',  -- NAME=value to set over it, NUL-closed
  visible      text    not null default 'auto' check (visible in ('auto', 'uuid', 'index')),
  grace_s      real    not null check (grace_s >= 0),
  stop_to      text    not null default 'all' check (stop_to in ('main', 'all')),  -- who gets TERM
  time_limit_s real    check (time_limit_s > 0),
  heartbeat_s  real    check (heartbeat_s > 0),  -- silent for so long, the job is ended
  on_kill      blob,               -- text for a shell, when gpuq ends the job
  retries      integer not null default 0 check (retries >= 0),
  backoff      text,               -- as it was written: "2s,4s,8s"; null: the usual
  retry_on     text,               -- as it was written: "failed,exit:75"; null: the usual
  gpu_mem_from text,               -- where the GPU memory it asks for comes from, if not from it
  mem_bytes    integer check (mem_bytes > 0),   -- what it may use of the machine's memory
  cpu_bound    integer check (cpu_bound > 0),   -- and of its CPUs, where somebody said so
  seed         integer not null,
  output       blob,               -- the log goes to this file instead
  stderr       blob,
  on_start     text,               -- what is done when it starts: a command or an address
  on_end       text,
  tags         text    not null default '[]' check (json_valid(tags)),
  elements     text    check (elements is null or json_valid(elements)),  -- what an array's elements differ in
  script       blob,               -- runs in place of argv[0], which is what it was called
  interpreter  blob,               -- of that script: words, each closed by a NUL
  as_slurm     integer not null default 0 check (as_slurm in (0, 1)),  -- with SLURM_… set
  preemptible  integer not null default 0 check (preemptible in (0, 1)),
  preempt_signal integer,          -- what it is sent to give way; null: the usual
  commit_id    text,               -- of the git work tree that it was submitted in
  snapshot     text,               -- the copy of that work tree that it runs in
  foreign key (uid, environment) references environments (uid, hash)
);
create index specs_environment on specs (uid, environment);
create index specs_snapshot on specs (uid, snapshot) where snapshot is not null;

-- The values of an array that came from a table, element by element: a JSON list of texts.
create table parameters (
  spec     integer not null references specs (id),
  element  integer not null,         -- counted from 0
  "values" text    not null check (json_valid("values")),
  primary key (spec, element)
) without rowid;

-- A submit that was answered is not done twice, however often its client asks.
create table tokens (
  uid      integer not null,
  token    text    not null,
  first_id integer not null,
  count    integer not null,
  at       real    not null,
  primary key (uid, token)
) without rowid;
create index tokens_age on tokens (at);

-- A submission, called g<its first id>. One that is long comes in several pieces.
create table groups (
  id           integer primary key,
  uid          integer not null,
  max_running  integer check (max_running >= 0),  -- of its jobs at a time, as somebody wishes
  max_gpus     integer check (max_gpus >= 0),     -- that they hold at a time
  limited_by   text,
  limited_at   real,
  stop_after   integer check (stop_after > 0)  -- so many of its jobs fail and none succeeds: the rest
                                   -- is not begun; null: it goes on
);
create index groups_limited on groups (id) where max_running is not null or max_gpus is not null;
create index groups_uid on groups (uid);
create table group_spans (
  group_id  integer not null references groups (id),
  first     integer not null,
  last      integer not null check (last >= first),
  primary key (group_id, first)
) without rowid;

-- A job, or a run of jobs that do not differ yet (id to last_id), elements of an array or separate jobs
-- that were submitted alike: each has a row of its own only once it does. Ids are never reused; a
-- submission owns a contiguous range of them.
create table jobs (
  id            integer primary key autoincrement,
  last_id       integer not null,
  group_id      integer not null,
  array_first   integer,           -- the id of its array's first element; null: it is of no array
  alike_first   integer,           -- the first of the separate jobs that it was submitted alike with,
                                   -- which has the seed of the spec, the next one the next seed, …
  spec          integer not null references specs (id),
  submitted_at  real    not null,
  key           text,              -- "<uid>:<key>": no other submission of that key while a job of
                                   -- this one lives; the elements of an array share it
  cpu_after_s   real    check (cpu_after_s > 0),  -- when it has waited so long for GPUs, the CPU will do

  -- Wished
  version        integer not null default 0,  -- counts what was wished: who edits compares it
  priority       integer not null default 0,
  rank           integer not null default 0,  -- among its user's own: lower goes first
  held_by        text,
  held_as_admin  integer not null default 0 check (held_as_admin in (0, 1)),  -- and not as its owner
  stop_asked_at  real,
  stop_grace_s   real,
  stop_actor     text,
  paused_by      text,             -- who wants it to stand still for now
  requeue_asked_at real,           -- it is to run once more; if it runs, after this attempt
  requeue_actor  text,
  requeue_kind   text check (requeue_kind in ('requeue', 'undo')),  -- undo: as before its cancel
  wish_token     text,             -- of the last request that was not to be done twice
  prune_asked_at real,             -- it has ended, and is to be forgotten with all that it left
  prune_actor    text,
  prune_outputs  integer not null default 0 check (prune_outputs in (0, 1)),  -- those too

  -- Happened
  state        text    not null default 'queued'
               check (state in ('queued', 'starting', 'running', 'ended')),
  class        integer not null references classes (id),  -- another once it ran out of memory
  place        integer not null,             -- in the queue: its id, or later once it was requeued
  open_needs   integer not null default 0,   -- how many things it waits for must end before it starts
  preemptions  integer not null default 0,   -- how often it gave way
  requeued_for real,                         -- the requeue_asked_at that was acted on
  cancelled_queued integer not null default 0 check (cancelled_queued in (0, 1)),  -- not while it ran
  attempt      integer not null default 0,   -- the last one committed; 0 before the first
  uncounted    integer not null default 0,   -- attempts up to that one that were none of its retries
  passes       integer not null default 0,   -- later jobs started on what this one waits for
  gpu_wait_mono real,                        -- since when it may start, where its wait for GPUs counts
  gpu_wait_boot text,
  gpu_request  text    check (gpu_request is null or json_valid(gpu_request)),  -- what it asked for
                                             -- before it turned to the CPU
  signal_sent  integer not null default 0,   -- the id of the last signal delivered
  delayed_until_at       real,               -- not before that
  delayed_until_boottime real,               -- null: by the wall clock, whoever sets it
  delayed_boot           text,
  delayed_for  text    check (delayed_for in ('begin', 'backoff')),  -- backoff: between two attempts
  outcome      text    check (outcome in ('succeeded', 'failed', 'cancelled', 'timed_out',
                                          'out_of_memory', 'lost', 'skipped')),
  reason       text,                         -- the sentence of the end
  open_reason  text,                         -- as others are told it who may not read the log
  started_at   real,
  ended_at     real,
  files_bytes      integer,                  -- its logs and records, measured after its end
  files_removed_at real,                     -- they are gone: they were old, or too much
  prune_failed_for real,                     -- the wish (prune_asked_at) that could not be fulfilled
  prune_trouble    text,                     -- and why

  check (last_id >= id),
  check (alike_first is null or array_first is null),
  check (last_id = id or (attempt = 0 and state in ('queued', 'ended'))),
  check ((state = 'ended') = (outcome is not null)),
  check ((state = 'ended') = (ended_at is not null)),
  check (state not in ('starting', 'running') or attempt > 0),
  check ((stop_asked_at is null) = (stop_grace_s is null)),
  check (delayed_until_at is null or state = 'queued' or cancelled_queued),  -- kept for an undo
  check (delayed_until_at is not null or delayed_until_boottime is null),
  check ((delayed_until_at is null) = (delayed_for is null)),
  check ((requeue_asked_at is null) = (requeue_kind is null)),
  check (not cancelled_queued or outcome = 'cancelled'),
  check ((gpu_wait_mono is null) = (gpu_wait_boot is null)),
  check (state = 'ended' or (prune_asked_at is null and files_bytes is null)),
  check (files_removed_at is null or files_bytes is not null)
);

-- The eligible: what the scheduler looks at, in its order, class by class.
create index jobs_eligible on jobs (class, priority desc, rank, place, last_id)
  where state = 'queued' and held_by is null and stop_asked_at is null and delayed_until_at is null
    and open_needs = 0;
create index jobs_queued on jobs (class) where state = 'queued' and stop_asked_at is null;
create index jobs_delayed on jobs (delayed_until_boottime)
  where delayed_until_boottime is not null and state = 'queued';
create index jobs_delayed_by_wall on jobs (delayed_until_at)
  where delayed_until_at is not null and delayed_until_boottime is null and state = 'queued';
-- Whose wait for GPUs counts, and has just begun; and those in whose it does count.
create index jobs_to_clock on jobs (id)
  where state = 'queued' and held_by is null and stop_asked_at is null and delayed_until_at is null
    and open_needs = 0 and cpu_after_s is not null and gpu_request is null and gpu_wait_mono is null;
create index jobs_clocked on jobs (gpu_wait_boot) where gpu_wait_mono is not null;
create index jobs_to_requeue on jobs (id)
  where requeue_asked_at is not null and requeue_asked_at is not requeued_for;
create index jobs_wish_token on jobs (wish_token) where wish_token is not null;
create index jobs_undoable on jobs (stop_asked_at) where cancelled_queued;
create index jobs_key on jobs (key) where key is not null and state <> 'ended';
create index jobs_to_cancel on jobs (id) where state = 'queued' and stop_asked_at is not null;
create index jobs_active on jobs (id) where state in ('starting', 'running');
create index jobs_unended on jobs (id) where state <> 'ended';
create index jobs_ended on jobs (ended_at) where state = 'ended';
create index jobs_ended_as on jobs (outcome, id) where state = 'ended';
create index jobs_group on jobs (group_id, state, outcome, id, last_id);
create index jobs_spec on jobs (spec);
create index jobs_unmeasured on jobs (id) where state = 'ended' and files_bytes is null;
create index jobs_with_files on jobs (ended_at) where files_bytes > 0 and files_removed_at is null;
create index jobs_to_prune on jobs (id) where prune_asked_at is not null;

-- What must have ended before the jobs `first` to `last` may start: those from on_first to on_last. Ids
-- are given in order and only earlier ones can be named, so nothing ever waits for itself. Where each
-- element waits for one, the row is divided as those end, and what is met is joined again.
-- Which spans a job lies in is found by their reach: of those of a reach only the ones that begin less
-- than that before it come into question.
create table needs (
  id         integer primary key,
  entry      integer not null,      -- the array that waits, by its first id, or the single job
  number     integer not null,      -- among what that waits for
  first      integer not null check (first >= entry),
  last       integer not null check (last >= first),
  on_first   integer not null,
  on_last    integer not null check (on_last >= on_first and on_last < entry),
  reach      integer not null check (reach > on_last - on_first),  -- a power of two
  condition  text    not null check (condition in ('ok', 'any', 'fail')),
  each       integer not null default 0 check (each in (0, 1)),  -- the first for the first, and so on
  state      text    not null default 'open' check (state in ('open', 'met', 'broken')),
  touched    integer not null default 1 check (touched in (0, 1)),  -- to be looked at (again)
  broken_by  integer,               -- the job that did not end so
  check (not each or last - first = on_last - on_first),
  check ((state = 'broken') = (broken_by is not null))
);
create unique index needs_of on needs (entry, number, first);
create index needs_unmet on needs (entry, first) where state <> 'met';
create index needs_on on needs (reach, on_first) where state <> 'met';
create index needs_touched on needs (id) where touched;

-- What one user, or all jobs of one tag, may have at a time. null: as much as there is.
create table limits (
  kind         text    not null check (kind in ('user', 'tag')),
  name         text    not null,
  max_running  integer check (max_running >= 0),
  max_gpus     integer check (max_gpus >= 0),
  actor        text    not null,
  at           real    not null,
  primary key (kind, name)
) without rowid;

-- GPUs set aside for a user and a time, which the wall clock tells.
create table reservations (
  id        integer primary key autoincrement,
  uid       integer not null,       -- for whom
  user      text    not null,
  gpus      text    not null check (json_valid(gpus)),  -- uuids
  begin_at  real    not null,
  end_at    real    not null check (end_at > begin_at),
  reason    text,
  actor     text    not null,
  made_at   real    not null,
  cancelled_at real,
  token     text                    -- of the request that made it, which is not done twice
);
create index reservations_end on reservations (end_at) where cancelled_at is null;
create unique index reservations_token on reservations (actor, token) where token is not null;

-- Signals to be sent by hand, each once and in this order. Those up to jobs.signal_sent have been.
create table signals (
  id      integer primary key autoincrement,
  job     integer not null references jobs (id),
  number  integer not null
);
create index signals_job on signals (job);

-- What is wished of the daemon itself. drain: {"reason": …}; it starts nothing while that stands.
create table wishes (
  name   text primary key,
  value  text not null check (json_valid(value)),
  actor  text not null,
  at     real not null
) without rowid;

-- What is wished of a GPU: that it is given to nobody; that what gpuq holds against it is forgotten.
create table gpu_wishes (
  gpu          text primary key,
  drained_by   text,
  drain_reason text,
  drained_at   real,
  resume_asked_at real,
  resume_actor text,
  resume_untested integer not null default 0 check (resume_untested in (0, 1)),
  check ((drained_by is null) = (drained_at is null)),
  check ((drained_by is null) = (drain_reason is null))
) without rowid;

-- ─── Happened ───────────────────────────────────────────────────────────────────────────────────

-- One try at a job. Its runner is known by (boot, pid, start time), never by a name.
create table attempts (
  job           integer not null references jobs (id),
  attempt       integer not null check (attempt > 0),
  nonce         text    not null,
  boot_id       text    not null,
  runner_pid    integer not null,
  runner_start  integer not null,   -- ticks after boot, field 22 of /proc/PID/stat
  runner_version integer not null,  -- of the order and the record that it speaks
  cgroup        text,               -- its control group, where one could be had
  mem_bound_by  text    check (mem_bound_by in ('kernel', 'watched')),  -- who sees to its mem_bytes
  cpu_bound_by  text    check (cpu_bound_by in ('kernel', 'nobody')),
  committed_at  real    not null,
  pid           integer,            -- the job's own main process
  pid_start     integer,
  started_at    real,
  started_mono  real,
  paused_mono   real,               -- since when it stands still
  resumed_mono  real,
  paused_s      real    not null default 0,  -- how long it stood still before that
  ending        text    check (ending in ('asked', 'time_limit', 'heartbeat', 'gpu_memory',
                                          'host_memory', 'shutdown', 'logout', 'preempted',
                                          'requeued')),  -- why gpuq ends it
  preempt_signal integer,           -- what it was told at its start that it would be sent to give way
  gives_way_to  integer,            -- the job for which it is preempted
  gives_way_for text,               -- that job in words: "190 (priority 10)"
  ending_mono   real,               -- its first signal for an end, of whatever cause
  term_mono     real,
  term_delivered integer not null default 0 check (term_delivered in (0, 1)),
  kill_mono     real,               -- the first KILL
  main_ended_mono real,             -- only what it left behind lives on
  unkillable    text,               -- what survives KILL, in words
  ended_at      real,
  outcome       text    check (outcome in ('succeeded', 'failed', 'cancelled', 'timed_out',
                                           'out_of_memory', 'lost')),
  reason        text,
  open_reason   text,               -- as others are told it who may not read the log
  exit_code     integer,
  signal        integer,
  stage         text,               -- the step that failed where the job could not start (with
                                    -- the exit code that a shell would give: 127, 126 or 125)
  error         text,
  error_signature text,             -- what it ended with, in the words that alike ends share
  lost          text,               -- why nobody can say how it ended
  leftovers     integer not null default 0,
  leftover_names text,
  user_s        real,
  system_s      real,
  peak_rss_bytes integer,           -- of the largest of its processes
  memory_peak_bytes integer,        -- of all of them: with the files that were cached for it where
                                    -- its control group counted it, without where it was watched
  log_dropped_bytes integer not null default 0,
  -- What it made of its GPUs, all of them together; null: nothing was measured.
  gpu_measured_s    real,           -- the time that the means were taken over
  gpu_peak_bytes    integer,        -- the most it used of one of them
  gpu_util_mean     real,           -- percent
  gpu_util_peak     integer,
  gpu_energy_j      real,           -- its share where it had not the GPU alone
  idle_since_at     real,           -- it has computed nothing since then
  contended_at      real,           -- when somebody outside gpuq was first seen on its GPUs
  contended_by      text,
  over_memory       text,           -- that it used more of a shared GPU than it asked for, in words
  xids              text    not null default '[]' check (json_valid(xids)),  -- errors of its GPUs
  gpus          text    not null default '[]' check (json_valid(gpus)),  -- indices and uuids it had
  primary key (job, attempt),
  check (ending is not null or (term_mono is null and kill_mono is null)),
  check ((gives_way_to is null) = (gives_way_for is null)),
  check ((ended_at is null) = (outcome is null)),
  check (ended_at is null
         or (exit_code is not null) + (signal is not null) + (lost is not null) = 1),
  check (stage is null or exit_code is not null)
) without rowid;

-- What an attempt told of itself, and how far its file has been read: the two change together, so no
-- line counts twice.
create table reports (
  job           integer not null,
  attempt       integer not null,
  file          text,               -- how what was read is known again: its inode and last bytes
  read_bytes    integer not null default 0,
  writers       text    not null default '{}' check (json_valid(writers)),  -- of each the number of
                                    -- its last line, and by how much those before that did not come
                                    -- are less; of an attempt that has ended nothing
  lines         integer not null default 0,   -- that were taken
  refused       integer not null default 0,   -- that could not be
  refused_values integer not null default 0,  -- of lines that were taken
  missed        integer not null default 0,   -- that their writers counted and that did not come
  skipped_bytes integer not null default 0,   -- that were not looked at: there was too much
  troubles      text    not null default '{}' check (json_valid(troubles)),  -- the first of each kind
                                    -- of all that, in words
  metrics       text    not null default '{}' check (json_valid(metrics)),  -- the last of each name
  progress      real    check (progress between 0 and 1),
  progress_from text    check (progress_from in ('report', 'log')),
  reported_at   real,               -- when the last line was written, by its own words
  primary key (job, attempt),
  foreign key (job, attempt) references attempts (job, attempt) on delete cascade,
  check ((progress is null) = (progress_from is null))
) without rowid;

-- How an attempt went: what was measured of it, in up to 240 stretches of equal length. Only of those
-- of which there is more than one point.
create table series (
  job           integer not null,
  attempt       integer not null,
  points        blob    not null,   -- JSON, packed by zlib: as the request `series` has it
  primary key (job, attempt),
  foreign key (job, attempt) references attempts (job, attempt) on delete cascade
) without rowid;

-- Every GPU this machine has shown: what can never run here is judged against these.
create table gpus (
  uuid                 text    primary key,
  idx                  integer not null,
  model                text    not null,
  simulated            integer not null check (simulated in (0, 1)),
  bus_id               text,
  memory_total_bytes   integer,
  memory_reserved_bytes integer,
  baseline_bytes       integer not null default 0,
  first_seen_at        real    not null,
  last_seen_at         real    not null
) without rowid;

-- When the last job that had a GPU ended. Apart from what is known of the GPU: that hardly changes.
create table gpus_left (
  gpu text primary key references gpus (uuid) on delete cascade,
  at  real not null
) without rowid;

-- What gpuq holds against a GPU. It is set aside while `quarantine` says why; where that is lasting,
-- only a restart of the machine or somebody's word ends it, otherwise a good test does.
create table gpu_health (
  gpu            text    primary key references gpus (uuid),
  quarantine     text,
  quarantined_at real,
  is_lasting     integer not null default 0 check (is_lasting in (0, 1)),
  boot_id        text,               -- of the boot in which it was set aside
  fast_failures  integer not null default 0,  -- of jobs, in a row
  failed_tests   integer not null default 0,  -- in a row, since it was set aside
  tested_at      real,
  test_trouble   text,               -- why the last test failed; null: it did not
  test_result    text    check (test_result is null or json_valid(test_result)),
  resumed_at     real,               -- the last resume_asked_at that was acted on
  accepted       text,               -- the defect that it had when somebody had it resumed
  check ((quarantine is null) = (quarantined_at is null))
) without rowid;

-- What a command has used of a GPU, for those who ask for as much again.
create table learned (
  uid         integer not null,
  command     blob    not null check (length(command) = 32),  -- a hash of program, cwd and name
  peak_bytes  integer not null,
  runs        integer not null,
  last_job    integer not null,
  at          real    not null,
  primary key (uid, command)
) without rowid;

-- How long a command has run before, at the most, for those who run it again.
create table durations (
  uid         integer not null,
  command     blob    not null check (length(command) = 32),
  longest_s   real    not null,
  runs        integer not null,
  last_job    integer not null,
  at          real    not null,
  primary key (uid, command)
) without rowid;

-- What each user has had of the GPUs, fading with time: GPU-seconds as of `at`.
create table shares (
  uid     integer primary key,
  user    text    not null,
  gpu_s   real    not null check (gpu_s >= 0),
  at      real    not null
);

-- Who holds what. The key alone makes it impossible to give a slot twice, and the triggers make it
-- impossible to sit beside an exclusive lease.
create table leases (
  gpu           text    not null references gpus (uuid),
  slot          integer not null check (slot between 0 and 63),
  job           integer not null,
  attempt       integer not null,
  exclusive     integer not null check (exclusive in (0, 1)),
  memory_bytes  integer check (memory_bytes >= 0),
  state         text    not null default 'active' check (state in ('active', 'cooling', 'dirty')),
  since         real    not null,
  cooling_mono  real,
  cooling_boot  text,
  dirt          text,               -- who still holds memory there, where it did not cool in time
  primary key (gpu, slot),
  unique (gpu, job, attempt),
  foreign key (job, attempt) references attempts (job, attempt),
  check (exclusive = 0 or slot = 0),
  check ((state = 'active') = (cooling_mono is null)),
  check ((state = 'dirty') = (dirt is not null))
) without rowid;

create trigger lease_beside_exclusive before insert on leases
when exists (select 1 from leases where gpu = new.gpu and (exclusive or new.exclusive))
begin
  select raise(abort, 'this GPU is leased already');
end;

create trigger lease_turned_exclusive before update of gpu, slot, exclusive on leases
begin
  select raise(abort, 'a lease does not move');
end;

-- What happened, in order, with its cause. A cursor into it is `seq`.
create table events (
  seq     integer primary key autoincrement,
  at      real    not null,
  kind    text    not null,
  job     integer,
  uid     integer,                  -- whose job that is
  attempt integer,
  gpu     text,
  actor   text    not null check (actor <> ''),  -- who asked for it; gpuq: nobody did
  cause   text    not null check (cause <> ''),
  open_cause text,                  -- as others are told it, where the cause quotes what is the owner's
  detail  text    check (detail is null or json_valid(detail))
);
create index events_job on events (job) where job is not null;
-- What befell a run of jobs at once: `job` is the first of them.
create index events_runs on events (job, detail ->> 'last') where detail ->> 'last' is not null;

-- What the settings want done, as this daemon read them last.
create table hooks (
  moment  text primary key check (moment in ('start', 'end', 'gpu_problem')),
  target  text not null
) without rowid;

-- What is to be told of one event to one target, in the transaction of that event. What a user is told
-- for a trial is put here when it is asked for; from then on the loop alone writes. claimed: somebody
-- may be at it. unknown: whoever was at it died, so it may have been done and is not done again.
-- dropped: too much waited; the row stands for as many as it says, and nothing of it was done.
create table notices (
  id        integer primary key autoincrement,
  event     integer,                -- seq of what it tells; null: a trial
  moment    text    not null check (moment in ('start', 'end', 'gpu_problem')),
  origin    text    not null check (origin in ('job', 'settings', 'trial')),
  target    text    not null,
  key       text    not null,       -- by which whoever gets it twice can tell that it is the same
  told      text    not null check (json_valid(told)),
  job       integer,
  attempt   integer,
  gpu       text,
  uid       integer,                -- as whom it is done; null: as the daemon
  gid       integer,
  user      text,
  made_at   real    not null,
  state     text    not null default 'waiting'
            check (state in ('waiting', 'claimed', 'done', 'failed', 'unknown', 'dropped')),
  stands_for integer not null default 1 check (stands_for > 0),
  tries     integer not null default 0,
  due_boottime real,                -- of a next try, on the clock of that boot
  due_boot  text,
  due_at    real,                   -- the same by the wall clock, for people
  trouble   text,                   -- why the last try failed
  output    text,                   -- of the last try, cut
  ended_at  real,
  check ((due_boottime is null) = (due_boot is null)),
  check (stands_for = 1 or state = 'dropped'),
  check ((state in ('waiting', 'claimed')) = (ended_at is null))
);
create index notices_open on notices (uid, id) where state in ('waiting', 'claimed');
create index notices_uid on notices (uid, id);
create index notices_job on notices (job) where job is not null;
create index notices_ended on notices (ended_at) where ended_at is not null;

-- What was counted: of the events, up to the one that the facts name (events_counted_to), and of the
-- daemon's own work. Nothing is ever taken off, so that who compares two moments sees what came between
-- them, though events are removed and daemons come and go. A histogram has its lengths of time (s) by
-- the upper bound of their bucket, and their sum under `_sum`.
create table tallies (
  name   text not null,
  label  text not null,             -- "": there is only one of that name
  value  real not null check (value >= 0),
  primary key (name, label)
) without rowid;

-- Ids that were given out and of whose jobs nothing is known any more: somebody wished it, or an older
-- database was put in place of this one. With the rows of `jobs` they are all ids that there ever were.
create table pruned (
  first  integer primary key,
  last   integer not null check (last >= first)
);

-- How many jobs are what, for those who would have to go through all rows to know. Nobody writes these
-- but the triggers at the end, in the transaction of what they count, and `check` counts again.
create table queued_jobs (
  class       integer not null,
  is_held     integer not null check (is_held in (0, 1)),
  is_stopping integer not null check (is_stopping in (0, 1)),  -- about to be cancelled
  jobs        integer not null,
  primary key (class, is_held, is_stopping)
) without rowid;

-- Of a group those that have ended, without the row whose id is the group's own: most jobs are groups
-- of their own, and these cost nothing then.
create table ended_jobs (
  group_id integer not null,
  outcome  text    not null,
  jobs     integer not null,
  primary key (group_id, outcome)
) without rowid;

-- Single facts about this database and the machine. events_pruned_to: {"seq": …, "at": …}, the last
-- of the events that were removed for their age, and the latest time among them. events_counted_to: the
-- last of those that are in the tallies. identity: given to the database when it was made.
create table facts (
  name   text primary key,
  value  text not null
) without rowid;
insert into facts (name, value) values ('identity', json_quote(lower(hex(randomblob(16)))));

-- An ended job stays ended unless somebody wants it once more, or what it was skipped for is run once
-- more; and a job never loses attempts that may have run.
create trigger ended_is_ended before update of state, outcome on jobs
when old.state = 'ended' and not (new.state = 'queued' and new.outcome is null
  and (old.requeue_asked_at is not old.requeued_for or old.outcome = 'skipped'))
begin
  select raise(abort, 'this job has ended');
end;

-- A key belongs to one submission at a time, however many rows its jobs have.
create trigger key_is_taken before insert on jobs
when new.key is not null and new.state <> 'ended'
 and exists (select 1 from jobs where key = new.key and state <> 'ended'
               and group_id <> new.group_id)
begin
  select raise(abort, 'a job of this key has not ended');
end;

create trigger key_is_taken_again before update of state on jobs
when old.state = 'ended' and new.state <> 'ended' and new.key is not null
 and exists (select 1 from jobs where key = new.key and state <> 'ended'
               and group_id <> new.group_id)
begin
  select raise(abort, 'a job of this key has not ended');
end;

-- Only the time counts in which a job could start: whoever takes that from it, it begins anew.
create trigger wait_begins_anew
after update of state, held_by, stop_asked_at, delayed_until_at, open_needs on jobs
when new.gpu_wait_mono is not null
 and not (new.state = 'queued' and new.held_by is null and new.stop_asked_at is null
          and new.delayed_until_at is null and new.open_needs = 0)
begin
  update jobs set gpu_wait_mono = null, gpu_wait_boot = null where id = new.id;
end;

create trigger no_skipping_states before update of state on jobs
when not ((old.state = 'queued'   and new.state in ('queued', 'starting', 'ended'))
       or (old.state = 'starting' and new.state in ('running', 'queued', 'ended'))
       or (old.state = 'running'  and new.state in ('running', 'queued', 'ended'))
       or (old.state = 'ended'))
begin
  select raise(abort, 'a job does not move like that');
end;

create trigger attempts_are_counted before update of attempt on jobs
when new.attempt <> old.attempt
 and not (old.state = 'queued'   and new.state = 'starting' and new.attempt = old.attempt + 1)
 and not (old.state = 'starting' and new.state = 'queued'   and new.attempt = old.attempt - 1)
begin
  select raise(abort, 'a job counts its attempts one by one');
end;

create trigger ended_holds_nothing before update of state on jobs
when new.state in ('ended', 'queued')
 and exists (select 1 from leases where job = new.id and state = 'active')
begin
  select raise(abort, 'a job that holds a GPU has not ended');
end;

-- What the tables queued_jobs and ended_jobs count. A row of jobs may be a run of them, and is divided.
create trigger count_queued_new after insert on jobs when new.state = 'queued'
begin
  insert into queued_jobs values (new.class, new.held_by is not null,
                                  new.stop_asked_at is not null, new.last_id - new.id + 1)
  on conflict do update set jobs = jobs + excluded.jobs;
end;

create trigger count_queued_changed
after update of state, class, held_by, stop_asked_at, last_id on jobs
when old.state = 'queued' or new.state = 'queued'
begin
  update queued_jobs set jobs = jobs - (old.last_id - old.id + 1)
  where old.state = 'queued' and class = old.class and is_held = (old.held_by is not null)
    and is_stopping = (old.stop_asked_at is not null);
  delete from queued_jobs
  where class = old.class and is_held = (old.held_by is not null)
    and is_stopping = (old.stop_asked_at is not null) and jobs = 0;
  insert into queued_jobs
  select new.class, new.held_by is not null, new.stop_asked_at is not null,
         new.last_id - new.id + 1
  where new.state = 'queued'
  on conflict do update set jobs = jobs + excluded.jobs;
end;

create trigger count_queued_gone after delete on jobs when old.state = 'queued'
begin
  update queued_jobs set jobs = jobs - (old.last_id - old.id + 1)
  where class = old.class and is_held = (old.held_by is not null)
    and is_stopping = (old.stop_asked_at is not null);
  delete from queued_jobs
  where class = old.class and is_held = (old.held_by is not null)
    and is_stopping = (old.stop_asked_at is not null) and jobs = 0;
end;

create trigger count_ended_new after insert on jobs
when new.state = 'ended' and new.id <> new.group_id
begin
  insert into ended_jobs values (new.group_id, new.outcome, new.last_id - new.id + 1)
  on conflict do update set jobs = jobs + excluded.jobs;
end;

create trigger count_ended_changed after update of state, outcome, last_id on jobs
when (old.state = 'ended' or new.state = 'ended') and new.id <> new.group_id
begin
  update ended_jobs set jobs = jobs - (old.last_id - old.id + 1)
  where old.state = 'ended' and group_id = old.group_id and outcome = old.outcome;
  delete from ended_jobs
  where old.state = 'ended' and group_id = old.group_id and outcome = old.outcome and jobs = 0;
  insert into ended_jobs select new.group_id, new.outcome, new.last_id - new.id + 1
  where new.state = 'ended'
  on conflict do update set jobs = jobs + excluded.jobs;
end;

create trigger count_ended_gone after delete on jobs
when old.state = 'ended' and old.id <> old.group_id
begin
  update ended_jobs set jobs = jobs - (old.last_id - old.id + 1)
  where group_id = old.group_id and outcome = old.outcome;
  delete from ended_jobs
  where group_id = old.group_id and outcome = old.outcome and jobs = 0;
end;
