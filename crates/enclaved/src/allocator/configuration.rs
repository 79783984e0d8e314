//! `allocator.yaml`: what its owner wants set apart for enclaves.
//!
//! ```yaml
//! memory_mib: 512          # AWS's flat form: one reservation
//! cpu_count: 2             # or: cpu_pool: 2,3,6-9
//! ```
//!
//! ```yaml
//! - memory_mib: 512        # the list form: one reservation for each enclave
//!   cpu_count: 2
//! - memory_mib: 1024
//!   cpu_pool: 2,3,6-9
//! ```
//!
//! `memory_mib` and exactly one of the other two are required, as AWS's own script requires them. A `---` line before them,
//! which AWS's script needs, is accepted. Numbers may be in quotes. Whatever else is in the file is an error that says what
//! to write instead, because a setting that is silently ignored is found out only when an enclave does not start.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::yaml::{self, Node, YamlError};
use crate::admission::topology::parse_cpu_list;

/// Where the file is, below `$NITRO_CLI_INSTALL_DIR`.
const FILE: &str = "etc/nitro_enclaves/allocator.yaml";

/// The variable that names the directory of an installation outside `/`, as for nitro-cli.
pub const INSTALL_DIRECTORY: &str = "NITRO_CLI_INSTALL_DIR";

/// The longest file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What is reserved where nobody says anything else: what AWS's package has in its file.
const DEFAULT_MIB: u64 = 512;
const DEFAULT_CPUS: u32 = 2;

/// What is to be reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// At least one.
    pub requests: Vec<Request>,
}

/// One reservation: CPUs and memory of one NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where in the file it is.
    pub place: Place,
    /// Memory in MiB, more than zero.
    pub memory_mib: u64,
    /// CPUs.
    pub cpus: CpuRequest,
}

/// CPUs that are to be reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuRequest {
    /// So many, more than zero.
    Count(u32),
    /// These, at least one.
    Pool(BTreeSet<u32>),
}

/// Which reservation of the file something is about, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The only one.
    Whole,
    /// One of a list, counted from one.
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Entry(number) => write!(f, "entry {number}: "),
        }
    }
}

/// A key of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `memory_mib`.
    MemoryMib,
    /// `cpu_count`.
    CpuCount,
    /// `cpu_pool`.
    CpuPool,
}

impl Key {
    const ALL: [Self; 3] = [Self::MemoryMib, Self::CpuCount, Self::CpuPool];

    fn name(self) -> &'static str {
        match self {
            Self::MemoryMib => "memory_mib",
            Self::CpuCount => "cpu_count",
            Self::CpuPool => "cpu_pool",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::MemoryMib => "write a whole number of MiB above zero, such as `memory_mib: 512`",
            Self::CpuCount => "write a whole number of CPUs above zero, such as `cpu_count: 2`",
            Self::CpuPool => "write a list of CPUs, such as `cpu_pool: 2,3,6-9`",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What the file holds is wrong.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with the text of a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is too long.
    #[error("it has more than {MAX_BYTES} bytes; a configuration is a few lines, see the example of --help")]
    TooLarge,
    /// The text is not YAML, or more of it than a configuration can need.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// There is nothing in the file.
    #[error("it reserves nothing; write `memory_mib: 512` and `cpu_count: 2`, or a list of such entries")]
    Empty,
    /// The file, or an entry of its list, is something else than keys with values.
    #[error("{place}found {found}; write `memory_mib: 512` and `cpu_count: 2`, or a list of such entries")]
    NoKeys {
        /// Where.
        place: Place,
        /// What is there.
        found: String,
    },
    /// There is no such key.
    #[error("{place}unknown key {key}; the keys are memory_mib and either cpu_count or cpu_pool")]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
    },
    /// No memory.
    #[error("{place}memory_mib is missing; {}", Key::MemoryMib.remedy())]
    NoMemory {
        /// Where.
        place: Place,
    },
    /// No CPUs.
    #[error("{place}cpu_count or cpu_pool is missing; write one of them, such as `cpu_count: 2`")]
    NoCpus {
        /// Where.
        place: Place,
    },
    /// CPUs in both ways.
    #[error("{place}cpu_count and cpu_pool exclude each other; remove one of them")]
    BothCpus {
        /// Where.
        place: Place,
    },
    /// A key without a value.
    #[error("{place}{key} has no value; {}", key.remedy())]
    NoValue {
        /// Where.
        place: Place,
        /// The key.
        key: Key,
    },
    /// A key with the wrong kind of value.
    #[error("{place}{key} is {found}; {}", key.remedy())]
    WrongValue {
        /// Where.
        place: Place,
        /// The key.
        key: Key,
        /// What is there.
        found: String,
    },
}

impl Configuration {
    /// The file's path, for the value of [`INSTALL_DIRECTORY`].
    pub fn default_path(install_directory: Option<&OsStr>) -> PathBuf {
        let root = install_directory.filter(|directory| !directory.is_empty());
        Path::new(root.unwrap_or(OsStr::new("/"))).join(FILE)
    }

    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigurationError> {
        let unreadable = |source| ConfigurationError::Read {
            path: path.to_owned(),
            source,
        };
        let content = |problem| ConfigurationError::Content {
            path: path.to_owned(),
            problem,
        };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(content(Problem::TooLarge));
        }
        Self::parse(&bytes).map(Some).map_err(content)
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// [`Problem`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let requests = match yaml::parse(bytes)? {
            Node::Nothing => return Err(Problem::Empty),
            Node::List(entries) if entries.is_empty() => return Err(Problem::Empty),
            Node::List(entries) => {
                let numbered = entries.into_iter().zip(1..);
                let requests = numbered.map(|(entry, number)| request(entry, Place::Entry(number)));
                requests.collect::<Result<_, _>>()?
            }
            single => vec![request(single, Place::Whole)?],
        };
        Ok(Self { requests })
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            requests: vec![Request {
                place: Place::Whole,
                memory_mib: DEFAULT_MIB,
                cpus: CpuRequest::Count(DEFAULT_CPUS),
            }],
        }
    }
}

fn request(entry: Node, place: Place) -> Result<Request, Problem> {
    let pairs = match entry {
        Node::Map(pairs) if pairs.is_empty() => return Err(Problem::NoMemory { place }),
        Node::Map(pairs) => pairs,
        other => {
            let found = other.to_string();
            return Err(Problem::NoKeys { place, found });
        }
    };
    let (mut memory_mib, mut count, mut pool) = (None, None, None);
    for (key, value) in pairs {
        let known = Key::ALL.into_iter().find(|known| key.is_text(known.name()));
        match known {
            Some(key @ Key::MemoryMib) => memory_mib = Some(number(&value, key, place)?),
            Some(key @ Key::CpuCount) => count = Some(number(&value, key, place)?),
            Some(Key::CpuPool) => pool = Some(cpu_list(&value, place)?),
            None => {
                let key = key.to_string();
                return Err(Problem::UnknownKey { place, key });
            }
        }
    }
    let cpus = match (count, pool) {
        (Some(count), None) => CpuRequest::Count(count),
        (None, Some(pool)) => CpuRequest::Pool(pool),
        (Some(_), Some(_)) => return Err(Problem::BothCpus { place }),
        (None, None) if memory_mib.is_none() => return Err(Problem::NoMemory { place }),
        (None, None) => return Err(Problem::NoCpus { place }),
    };
    Ok(Request {
        place,
        memory_mib: memory_mib.ok_or(Problem::NoMemory { place })?,
        cpus,
    })
}

/// A number above zero that fits its type.
fn number<N: TryFrom<u64>>(value: &Node, key: Key, place: Place) -> Result<N, Problem> {
    if value.is_nothing() {
        return Err(Problem::NoValue { place, key });
    }
    let positive = value.whole_number().filter(|number| *number > 0);
    let fitting = positive.and_then(|number| N::try_from(number).ok());
    fitting.ok_or_else(|| Problem::WrongValue {
        place,
        key,
        found: value.to_string(),
    })
}

/// A bare number is a list of one CPU, and one that YAML takes for a number.
fn cpu_list(value: &Node, place: Place) -> Result<BTreeSet<u32>, Problem> {
    let key = Key::CpuPool;
    if value.is_nothing() {
        return Err(Problem::NoValue { place, key });
    }
    let listed = match value {
        Node::Number(number) => parse_cpu_list(&number.to_string()),
        Node::Text(text) => parse_cpu_list(text.trim()),
        _ => None,
    };
    let cpus = listed.filter(|cpus| !cpus.is_empty());
    cpus.ok_or_else(|| Problem::WrongValue {
        place,
        key,
        found: value.to_string(),
    })
}

#[cfg(test)]
mod tests;
