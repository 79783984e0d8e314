//! What the daemon says of itself, and of what it has for enclaves.

use std::path::Path;
use std::time::{Duration, Instant};

use api::{Pools, Reply, Request};

use crate::daemon::{AskError, Daemon, unexpected_answer};

use super::{Finding, Status};

/// A daemon that has not answered by then is not well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether it answers, and what CPUs and memory it has to give.
pub(super) fn examine(socket: &Path) -> [Finding; 2] {
    match ask(socket) {
        Ok(pools) => {
            let answers = format!("the daemon answers on {}", socket.display());
            [Finding::ok("daemon", answers), pool(&pools)]
        }
        Err(AskError::Declined(failure) | AskError::NoAnswer(failure)) => {
            let unknown = Finding {
                check: "pool",
                status: Status::Unknown,
                detail: "only the daemon knows what enclaves may have".into(),
                remedy: None,
            };
            let start = "sudo systemctl start enclaved   (or `sudo enclaved` where systemd does not run)";
            [
                Finding::wrong("daemon", Status::Failed, failure.message, start),
                unknown,
            ]
        }
    }
}

fn ask(socket: &Path) -> Result<Pools, AskError> {
    let mut daemon = Daemon::connect(socket)?;
    daemon.answer_until(Instant::now() + PATIENCE);
    match daemon.ask(&Request::DescribePools, None)? {
        Reply::Pools(pools) => Ok(pools),
        _ => Err(unexpected_answer()),
    }
}

fn pool(pools: &Pools) -> Finding {
    let total = pools.cores.len();
    let free = pools
        .cores
        .iter()
        .filter(|core| core.enclave_id.is_none())
        .count();
    let mib = |pages: fn(&api::PoolHugepages) -> u64| -> u64 {
        let sizes = pools.hugepages.iter();
        sizes
            .map(|size| size.page_size_mib.saturating_mul(pages(size)))
            .fold(0, u64::saturating_add)
    };
    let (total_mib, free_mib) = (mib(|size| size.total), mib(|size| size.free));
    let detail =
        format!("{free} of {total} cores and {free_mib} of {total_mib} MiB of memory are free for enclaves");
    let remedy =
        "sudoedit /etc/nitro_enclaves/allocator.yaml && sudo systemctl restart nitro-enclaves-allocator";
    if total == 0 || total_mib == 0 {
        Finding::wrong("pool", Status::Failed, detail, remedy)
    } else if free == 0 || free_mib == 0 {
        Finding::wrong("pool", Status::Warning, detail, "nitro-cli describe-pools")
    } else {
        Finding::ok("pool", detail)
    }
}

#[cfg(test)]
mod tests {
    use api::{PoolCore, PoolHugepages};

    use super::*;

    fn pools(cores: &[Option<&str>], total: u64, free: u64) -> Pools {
        let core = |id: Option<&str>| PoolCore {
            node: 0,
            cpus: vec![1],
            enclave_id: id.map(str::to_owned),
            enclave_name: None,
        };
        Pools {
            cores: cores.iter().copied().map(core).collect(),
            hugepages: vec![PoolHugepages {
                node: 0,
                page_size_mib: 2,
                total,
                free,
            }],
        }
    }

    #[test]
    fn a_pool_with_nothing_in_it_fails_and_one_that_is_all_taken_is_a_warning() {
        let cases = [
            (pools(&[], 256, 256), Status::Failed),
            (pools(&[None], 0, 0), Status::Failed),
            (pools(&[Some("i-0-enc1")], 256, 256), Status::Warning),
            (pools(&[None], 256, 0), Status::Warning),
            (pools(&[None, Some("i-0-enc1")], 256, 128), Status::Ok),
        ];
        for (pools, status) in cases {
            assert_eq!(pool(&pools).status, status, "{pools:?}");
        }
        assert_eq!(
            pool(&pools(&[None, Some("i-0-enc1")], 256, 128)).detail,
            "1 of 2 cores and 256 of 512 MiB of memory are free for enclaves"
        );
    }
}
