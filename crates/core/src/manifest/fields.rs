//! The one table of everything a manifest can hold. Checks, JSON Schema and reference page are made from it.

use super::component_kind as kind;
use super::tier::Tier;
use super::{agent, backup_way, mail, object_lock, wal};

/// A table of the manifest.
#[derive(Debug)]
pub(super) struct Section {
    /// How it is written: `[service]`, `[[component]]`.
    pub(super) title: &'static str,
    /// What it is for, in one or two sentences.
    pub(super) doc: &'static str,
    pub(super) fields: &'static [Field],
}

/// A key of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) doc: &'static str,
    /// What holds when the key is absent, as the reference shows it.
    pub(super) default: Option<&'static str>,
    pub(super) required: bool,
    /// The value is a reference to a secret; a literal value must not be printed.
    pub(super) secret: bool,
    /// The kinds of components that have this key; empty for all.
    pub(super) only_for: &'static [&'static str],
}

/// The type of a value, with what is checked of it alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// The number 1.
    Version,
    /// Any text.
    Text,
    /// A text that is not empty.
    FilledText,
    /// A whole number within these bounds, both included.
    Integer(i64, i64),
    /// A length of time of at least one second: `15m`.
    Duration,
    /// A length of time of at least one minute: minutes as a number, or `15m`.
    Minutes,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A name: `[a-z0-9][a-z0-9_-]*`, at most 63 characters, not reserved.
    Name,
    /// Names, all different.
    Names,
    /// A path, absolute or relative to the manifest.
    Path,
    /// A program and its arguments; no shell is involved.
    Command,
    /// Patterns of paths.
    Patterns,
    /// Names of tables of a database, any text, all different.
    DatabaseTables,
    /// `env:NAME` or `file:PATH`.
    SecretRef,
    /// The same, or `transit:URL`.
    KeyRef,
    /// The address of a repository.
    RepositoryUrl,
    /// An address that is probed over HTTP.
    HttpUrl,
    /// An address over HTTP, or a reference to one that holds a secret.
    Receiver,
    /// An address and a port to listen on.
    Listen,
    /// A mail server: `host:port`.
    MailServer,
    /// An e-mail address: `name@domain`.
    MailAddress,
    /// E-mail addresses, all different.
    MailAddresses,
    /// The address of a PostgreSQL or Redis server, or a reference to one.
    ServerUrl,
    /// An amount of money: digits, and up to nine more behind a point.
    Amount,
    /// An Ed25519 public key, 32 bytes in base64.
    PublicKey,
    /// A table.
    Table(&'static Section),
    /// Tables in a list.
    Tables(&'static Section),
    /// A table with one table for each tier.
    PerTier(&'static Section),
}

impl Section {
    /// The field of this name.
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The names of all keys.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }
}

impl Field {
    const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, default: None, required: false, secret: false, only_for: &[] }
    }
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
    const fn only_for(mut self, kinds: &'static [&'static str]) -> Self {
        self.only_for = kinds;
        self
    }

    /// The section that holds one table of this section's form for each tier.
    pub(super) fn per_tier(&self) -> Option<&'static Section> {
        match self.kind {
            Kind::PerTier(_) => Some(&TIERS),
            _ => None,
        }
    }
}

/// Whether `name` is a key of some table and holds no secret.
pub(super) fn is_plain_key(name: &str) -> bool {
    fn search(section: &Section, name: &str) -> bool {
        section.fields.iter().any(|field| match field.kind {
            Kind::Table(inner) | Kind::Tables(inner) => field.name == name || search(inner, name),
            _ => field.name == name && !field.secret && !matches!(field.kind, Kind::PublicKey),
        })
    }
    search(&ROOT, name) || search(&TIER, name)
}

/// The whole manifest.
pub(super) static ROOT: Section = Section {
    title: "the manifest",
    doc: "The keys and tables at the top.",
    fields: &[
        Field::new("version", Kind::Version, "The version of the manifest's format.").required(),
        Field::new("service", Kind::Table(&SERVICE), "The service that is protected.").required(),
        Field::new("repository", Kind::Tables(&REPOSITORY), "Where backups are stored; at least one.")
            .required(),
        Field::new("component", Kind::Tables(&COMPONENT), "What is backed up; at least one.").required(),
        Field::new("tier", Kind::PerTier(&TIER), "Other objectives for a tier.")
            .default("see the tiers above"),
        Field::new("schedule", Kind::Table(&SCHEDULE), "How often components are backed up."),
        Field::new("retention", Kind::Table(&RETENTION), "How long snapshots are kept.")
            .default("`keep_within = \"30d\"`"),
        Field::new("evidence", Kind::Table(&EVIDENCE), "How records of backups and drills are signed."),
        Field::new("drill", Kind::Table(&DRILL), "Where and how long drills run."),
        Field::new(
            "agent",
            Kind::Table(&AGENT),
            "What the agent does besides backups, and where it answers.",
        ),
        Field::new("alerts", Kind::Table(&ALERTS), "Where the agent sends alerts."),
    ],
};

static SERVICE: Section = Section {
    title: "[service]",
    doc: "The service as a whole. With `start`, a drill and `recover` start it and time its return.",
    fields: &[
        Field::new("name", Kind::Name, "The service's name.").required(),
        Field::new("health", Kind::HttpUrl, "Answers with status 200 when the service works."),
        Field::new(
            "start",
            Kind::Command,
            "The command that starts the service, run in the manifest's directory without a shell.",
        ),
        Field::new(
            "stop",
            Kind::Command,
            "The command that stops it, run as `start` is, when a recovery in place is undone. For services that \
             another program keeps running, such as systemd. Drills do not run it.",
        )
        .default("SIGTERM to what `start` started"),
        Field::new(
            "ready_seconds",
            Kind::Integer(1, 86_400),
            "How long after `start` the service may take until `health` and its checks pass.",
        )
        .default("30"),
        Field::new("check", Kind::Tables(&SERVICE_CHECK), "Checks of the running service."),
    ],
};

static SERVICE_CHECK: Section = Section {
    title: "[[service.check]]",
    doc: "A check over HTTP of the service that was started after a restore.",
    fields: &[
        Field::new("url", Kind::HttpUrl, "The address that is fetched.").required(),
        Field::new("expect_status", Kind::Integer(100, 599), "The status that must come back.")
            .default("200"),
        Field::new("expect_body", Kind::FilledText, "A text that the body must contain."),
    ],
};

static REPOSITORY: Section = Section {
    title: "[[repository]]",
    doc: "A store for snapshots. Several may be declared; a component is backed up into all that it names.",
    fields: &[
        Field::new("name", Kind::Name, "The repository's name.").required(),
        Field::new(
            "url",
            Kind::RepositoryUrl,
            "`file:///path`; `sftp://user@host/path`, with `ssh`'s own keys; `s3://bucket/prefix`, `az://container/prefix` or \
             `gs://bucket/prefix`, whose credentials come from the environment; `stores.md` describes each.",
        )
        .required(),
        Field::new(
            "password",
            Kind::KeyRef,
            "The password that opens the repository, for `restic` too; or the key of a transit engine that wraps one, \
             `transit:https://host:8200/v1/transit/keys/NAME`; `keys.md` describes it.",
        )
            .required()
            .secret(),
        Field::new(
            "copy_of",
            Kind::Name,
            "The repository that this one is a copy of: no backup and no WAL is written into it, and the agent brings there what is \
             new in that one with `retoma copy`; `copy.md` describes it.",
        )
        .default("no copy: backups go into it"),
        Field::new(
            "region",
            Kind::Name,
            "Where it lies, in your own words: what burns together has the same. A drill of `lost-region` compares it; `drill.md` \
             says what counts without one.",
        )
        .default("unknown"),
        Field::new(
            "lock_days",
            Kind::Integer(1, object_lock::LONGEST_DAYS),
            "For `s3://`, `gs://` and `az://`, in a bucket with locks of objects: whatever a kept snapshot needs cannot be deleted \
             or changed for so many days more, by nobody; not run against the real services of Google and Azure; `immutability.md` \
             describes it.",
        )
        .default("nothing is locked"),
        Field::new(
            "lock_mode",
            Kind::Choice(&object_lock::MODES),
            "Who may take a lock away before it ends: nobody, or who has the right to bypass governance.",
        )
        .default("`compliance`"),
        Field::new("price", Kind::Table(&PRICE), "What the provider asks for, for `status --cost`."),
    ],
};

static PRICE: Section = Section {
    title: "[repository.price]",
    doc: "What the provider of this repository asks for; `status --cost` estimates with it, and `cost.md` says how. Stands after its \
          `[[repository]]`.",
    fields: &[
        Field::new("currency", Kind::Text, "The currency of these amounts, for people.").default("USD"),
        Field::new("gb_month", Kind::Amount, "What 10^9 bytes cost in a month.").default("0"),
        Field::new("writes_1000", Kind::Amount, "What a thousand writes or listings cost.").default("0"),
        Field::new("reads_1000", Kind::Amount, "What a thousand reads cost.").default("0"),
    ],
};

static COMPONENT: Section = Section {
    title: "[[component]]",
    doc: "A part of the service that is backed up and restored by itself.",
    fields: &[
        Field::new("name", Kind::Name, "The component's name.").required(),
        Field::new("kind", Kind::Choice(&kind::NAMES), "What the component is.").required(),
        Field::new("tier", Kind::Choice(&Tier::NAMES), "How important it is; gives RTO, RPO and the order of recovery.")
            .required(),
        Field::new("path", Kind::Path, "The database file, or the file or folder that is backed up.")
            .required()
            .only_for(kind::WITH_PATH),
        Field::new(
            "url",
            Kind::ServerUrl,
            "The server's address without a password, or `env:NAME` / `file:PATH` for one that may hold a password.",
        )
        .required()
        .only_for(kind::WITH_URL),
        Field::new("exclude", Kind::Patterns, "Patterns of paths below `path` that are left out.")
            .default("nothing")
            .only_for(kind::WITH_EXCLUDE),
        Field::new(
            "may_be_empty",
            Kind::DatabaseTables,
            "Tables that may lose all their rows, or be dropped, from one backup to the next.",
        )
        .default("none: a table that had rows and has none stops the backup (R0403)")
        .only_for(kind::WITH_TABLES),
        Field::new(
            "backup",
            Kind::Choice(&backup_way::WAYS),
            "How a server is backed up; `postgres.md` says what each needs. `local`: its data directory is read, on the \
             database's host. `stream`: it sends its data directory, from any host. `logical`: its databases are dumped, \
             from any host, without points in time.",
        )
        .default("local")
        .only_for(kind::WITH_WAY),
        Field::new(
            "marks",
            Kind::Choice(&kind::MARKS),
            "Whether the agent writes numbered marks into the table `retoma.mark` of this server; `agent.md` says what for.",
        )
        .default("on")
        .only_for(kind::WITH_MARKS),
        Field::new("repositories", Kind::Names, "The repositories that it is backed up into.")
            .default("all that are no copies"),
        Field::new("schedule", Kind::Table(&COMPONENT_SCHEDULE), "Another schedule for this component."),
        Field::new("retention", Kind::Table(&COMPONENT_RETENTION), "Another retention for this component."),
        Field::new("wal", Kind::Table(&COMPONENT_WAL), "How the server's WAL gets into the repositories.")
            .only_for(kind::WITH_WAL),
        Field::new(
            "mass_change",
            Kind::Table(&COMPONENT_MASS_CHANGE),
            "From where on a change from one backup to the next is a mass change.",
        )
        .only_for(kind::WITH_MASS_CHANGE),
        Field::new("check", Kind::Tables(&COMPONENT_CHECK), "Checks of the restored component."),
    ],
};

const PERCENT: Kind = Kind::Integer(0, 100);

static COMPONENT_MASS_CHANGE: Section = Section {
    title: "[component.mass_change]",
    doc: "From where on a change from one backup to the next looks like somebody's who encrypts or deletes everything; the snapshot is \
          tagged then, and retention held. `mass-change.md` says what is counted. A share of 0 turns its finding off.",
    fields: &[
        Field::new(
            "min_files",
            Kind::Integer(0, 1 << 40),
            "So many files there must have been before for changed and gone files to be looked at.",
        )
        .default("100"),
        Field::new("changed_percent", PERCENT, "Percent of the files before that have other contents now.")
            .default("50"),
        Field::new("gone_percent", PERCENT, "Percent of the files before, or of their bytes, that are gone.")
            .default("50"),
        Field::new(
            "encrypted_percent",
            PERCENT,
            "Percent of all bytes before that could be compressed and no longer can be.",
        )
        .default("20"),
    ],
};

static COMPONENT_WAL: Section = Section {
    title: "[component.wal]",
    doc: "How the write-ahead log of a PostgreSQL server gets into the repositories of its component; `wal.md` says what \
          each mode loses, and what blocks when a repository does not answer.",
    fields: &[
        Field::new(
            "mode",
            Kind::Choice(&wal::MODES),
            "`archive`: by `archive_command`; `stream`: by `retoma wal stream`, within a second; `synchronous`: as \
             `stream`, and commits wait for the repositories.",
        )
        .default("archive"),
        Field::new(
            "archive_timeout",
            Kind::Duration,
            "For `archive`: the `archive_timeout` that is set on the server, where `archive_command` runs `retoma wal push`. With \
             a tenth of the RPO for the push it bounds what is lost; when that meets the RPO, backups need not.",
        )
        .default("none: only backups meet the RPO"),
        Field::new(
            "slot_limit_mib",
            Kind::Integer(1, 1 << 40),
            "How much WAL the replication slot may make the server keep, in MiB: warning at half, alarm at four fifths.",
        )
        .default("16384"),
        Field::new(
            "at_slot_limit",
            Kind::Choice(&wal::POLICIES),
            "What is given up at that limit. `drop`: the slot, so that the database lives; the gap alarms and the next \
             backup closes it. `keep`: nothing, which may fill the server's disk.",
        )
        .default("drop"),
    ],
};

static COMPONENT_CHECK: Section = Section {
    title: "[[component.check]]",
    doc: "A check of the restored copy: either `sql` with one expectation, or `command`, which must end with 0 and runs \
          in the folder of the restored copy.",
    fields: &[
        Field::new("sql", Kind::FilledText, "A query; for `postgres` and `sqlite`."),
        Field::new("expect", Kind::Text, "The first column of the query's first row, as text."),
        Field::new("min_rows", Kind::Integer(1, i64::MAX), "How many rows the query must give at least."),
        Field::new("command", Kind::Command, "A program and its arguments."),
    ],
};

static TIERS: Section = Section {
    title: "[tier]",
    doc: "",
    fields: &[
        Field::new("critical", Kind::Table(&TIER), "Objectives of `critical`."),
        Field::new("high", Kind::Table(&TIER), "Objectives of `high`."),
        Field::new("medium", Kind::Table(&TIER), "Objectives of `medium`."),
        Field::new("low", Kind::Table(&TIER), "Objectives of `low`."),
    ],
};

static TIER: Section = Section {
    title: "[tier.NAME]",
    doc: "Other objectives for the tier `critical`, `high`, `medium` or `low`: minutes as a number, or a length of time.",
    fields: &[
        Field::new("rto", Kind::Minutes, "Recovery time objective: the longest time from loss to service.")
            .default("the tier's"),
        Field::new(
            "rpo",
            Kind::Minutes,
            "Recovery point objective: the longest stretch of time that may be lost.",
        )
        .default("the tier's"),
    ],
};

const EVERY: Field = Field::new("every", Kind::Duration, "The time from one backup to the next.");
const ALLOWANCE: Field = Field::new(
    "capture_allowance_seconds",
    Kind::Integer(0, 86_400),
    "The time that is set aside for capture and upload when the schedule is compared with the RPO.",
);

static SCHEDULE: Section = Section {
    title: "[schedule]",
    doc: "How often components are backed up.",
    fields: &[
        EVERY.default("the longest that meets the tier's RPO, at most `1h`; `1d` where WAL meets it"),
        ALLOWANCE.default("a tenth of the tier's RPO"),
    ],
};

static COMPONENT_SCHEDULE: Section = Section {
    title: "[component.schedule]",
    doc: "How often this component is backed up; stands after its `[[component]]`.",
    fields: &[EVERY.default("that of `[schedule]`"), ALLOWANCE.default("that of `[schedule]`")],
};

const COUNT: Kind = Kind::Integer(0, 100_000);
const RETENTION_FIELDS: &[Field] = &[
    Field::new("keep_last", COUNT, "The newest snapshots that are kept.").default("0"),
    Field::new("hourly", COUNT, "Hours of which the last snapshot is kept.").default("0"),
    Field::new("daily", COUNT, "Days of which the last snapshot is kept.").default("0"),
    Field::new("weekly", COUNT, "Weeks of which the last snapshot is kept.").default("0"),
    Field::new("monthly", COUNT, "Months of which the last snapshot is kept.").default("0"),
    Field::new("yearly", COUNT, "Years of which the last snapshot is kept.").default("0"),
    Field::new("keep_within", Kind::Duration, "Everything that is younger than this is kept.").default("off"),
    Field::new("holds", Kind::Names, "Tags; a snapshot with one of them is never forgotten (legal hold).")
        .default("none"),
];

static RETENTION: Section = Section {
    title: "[retention]",
    doc: "Which snapshots `forget` keeps: what any of the rules keeps, stays. Without a rule, everything of the last 30 \
          days stays.",
    fields: RETENTION_FIELDS,
};

static COMPONENT_RETENTION: Section = Section {
    title: "[component.retention]",
    doc: "Rules for this component. If there is one, none of the rules of `[retention]` holds; its `holds` always do.",
    fields: RETENTION_FIELDS,
};

static EVIDENCE: Section = Section {
    title: "[evidence]",
    doc: "Records of backups and drills are signed where `signing_key` is found, which should not be the database host.",
    fields: &[
        Field::new("signing_key", Kind::SecretRef, "The Ed25519 key that signs records.").secret(),
        Field::new(
            "public_key",
            Kind::PublicKey,
            "The key that records are verified with: 32 bytes in base64.",
        ),
        Field::new("writer", Kind::Name, "The name of the chain that this host writes.")
            .default("the service's name"),
    ],
};

static DRILL: Section = Section {
    title: "[drill]",
    doc: "Drills restore into folders and onto ports of their own, never onto live data.",
    fields: &[
        Field::new("scratch_dir", Kind::Path, "The folder in which drills make their own folders.")
            .default("the system's folder for temporary files"),
        Field::new(
            "timeout_seconds",
            Kind::Integer(1, 604_800),
            "After this time a drill is stopped and has failed.",
        )
        .default("3600"),
        Field::new(
            "marker_url",
            Kind::HttpUrl,
            "Takes `POST {\"run\":\"…\",\"number\":N}`, keeps it durably and answers 200 with the same object: a numbered write.",
        )
        .default("markers are written into the restored copy itself"),
        Field::new(
            "markers_url",
            Kind::HttpUrl,
            "Answers `GET …?run=…` with `{\"run\",\"count\",\"max\",\"missing\":[[first,last],…]}`.",
        )
        .default("`marker_url` with an `s` behind its path"),
        Field::new(
            "marker_component",
            Kind::Name,
            "The component that holds what is written to `marker_url`.",
        )
        .default("the first `sqlite` component"),
    ],
};

static AGENT: Section = Section {
    title: "[agent]",
    doc: "What `retoma agent` does besides backups, and where it answers; `agent.md` describes it.",
    fields: &[
        Field::new("listen", Kind::Listen, "The address and port of `/metrics` and `/healthz`.")
            .default(agent::LISTEN),
        Field::new(
            "token",
            Kind::SecretRef,
            "What a request must carry as `Authorization: Bearer …`; needed for an address beyond this machine.",
        )
        .secret(),
        Field::new("retention_every", Kind::Duration, "The time from one `forget` and `prune` to the next.")
            .default("1d"),
        Field::new("verify_every", Kind::Duration, "The time from one `verify` to the next.").default("7d"),
        Field::new(
            "verify_sample_percent",
            Kind::Integer(1, 100),
            "The share of the packs that each `verify` reads.",
        )
        .default("5"),
        Field::new("wal_check_every", Kind::Duration, "The time from one `wal check` to the next.").default("5m"),
        Field::new("copy_every", Kind::Duration, "The time from one `copy` into a repository with `copy_of` to the next.")
            .default("1h"),
        Field::new("marks_every", Kind::Duration, "The time from one mark in a PostgreSQL server to the next.").default("10s"),
        Field::new("drill", Kind::Name, "The scenario that is drilled, such as `deletion`.").default("no drill"),
        Field::new("drill_every", Kind::Duration, "The time from one drill to the next.").default("7d"),
    ],
};

static ALERTS: Section = Section {
    title: "[alerts]",
    doc: "Where `retoma agent` sends alerts; what each receiver gets is in `agent.md`. An address that holds a secret is \
          written as a reference.",
    fields: &[
        Field::new("webhook", Kind::Receiver, "Gets a POST with JSON when alerts begin or end."),
        Field::new("alertmanager", Kind::Receiver, "Alertmanager's address, without `/api/v2/alerts`."),
        Field::new("dead_man", Kind::Receiver, "Gets a GET in each minute in which all is well."),
        Field::new("email", Kind::Table(&EMAIL), "Gets a mail when alerts begin or end."),
    ],
};

static EMAIL: Section = Section {
    title: "[alerts.email]",
    doc: "Alerts as e-mail; each address gets a message of its own, and what it did not get is sent again.",
    fields: &[
        Field::new("server", Kind::MailServer, "The server that takes the mail, as `host:port`.").required(),
        Field::new(
            "security",
            Kind::Choice(&mail::SECURITIES),
            "`starttls`: TLS is asked for, and without it nothing is sent; `tls`: from the first byte on; `none`: for a server on \
             this machine only.",
        )
        .default("starttls"),
        Field::new("ca_file", Kind::Path, "Certificates (PEM) that are trusted too, for a server with one of its own.")
            .default("none: the well-known authorities"),
        Field::new("from", Kind::MailAddress, "The sender's address, `name@domain`.").required(),
        Field::new("to", Kind::MailAddresses, "Who gets it.").required(),
        Field::new("user", Kind::FilledText, "Who logs in.").default("nobody logs in"),
        Field::new("password", Kind::SecretRef, "The password of `user`.").secret(),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::address;

    fn each(section: &'static Section, visit: &mut dyn FnMut(&'static Section)) {
        visit(section);
        for field in section.fields {
            match field.kind {
                Kind::Table(inner) | Kind::Tables(inner) | Kind::PerTier(inner) => each(inner, visit),
                _ => {}
            }
        }
    }

    #[test]
    fn names_are_unique_and_documented() {
        each(&ROOT, &mut |section| {
            for (at, field) in section.fields.iter().enumerate() {
                assert!(field.doc.ends_with('.'), "{} {}", section.title, field.name);
                assert!(section.fields[..at].iter().all(|other| other.name != field.name), "{}", field.name);
                assert!(!(field.required && field.default.is_some()), "{}", field.name);
            }
        });
    }

    #[test]
    fn secrets_are_marked_as_such() {
        each(&ROOT, &mut |section| {
            for field in section.fields {
                assert_eq!(
                    field.secret,
                    matches!(field.kind, Kind::SecretRef | Kind::KeyRef),
                    "{}",
                    field.name
                );
            }
        });
    }

    #[test]
    fn every_tier_can_be_overridden() {
        assert_eq!(TIERS.names(), Tier::NAMES);
    }

    #[test]
    fn addresses_exist_for_each_kind_with_a_url() {
        assert_eq!(kind::WITH_URL, ["postgres", "redis"]);
        assert!(address::POSTGRES.contains(&"postgres") && address::REDIS.contains(&"redis"));
    }
}
