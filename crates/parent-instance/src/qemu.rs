//! QEMU's command line for a [`Config`].
//!
//! `-M q35`: `-M microvm` starts faster but hung now and then. `-nodefaults` and no network card: the machine has the
//! devices that are named here. The kernel's own arguments that never change are built into the parent kernel.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Config;
use crate::tsc;

/// Names of the virtio-serial ports; inside the machine `/dev/virtio-ports/<name>`, outside `<name>.socket`.
pub(crate) const STATUS: &str = "status";
pub(crate) const STDOUT: &str = "stdout";
pub(crate) const STDERR: &str = "stderr";
pub(crate) const TERMINAL: &str = "terminal";
pub(crate) const PORTS: [&str; 4] = [STATUS, STDOUT, STDERR, TERMINAL];

/// The kernel's log, in the directory of the machine.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// The initramfs, in the directory of the machine.
pub(crate) const INITRAMFS: &str = "initramfs";

/// The name of the shared directory's 9p file system, which `init.sh` mounts.
const SHARE_TAG: &str = "share";

/// The emulated processor. Not with CMPXCHG16B, which Linux's slab allocator would use: where QEMU 7.2 emulates it, the flags
/// it leaves can be an operand of an earlier instruction, virtual-8086 mode and all, and an interrupt that comes just then
/// is a double fault in whichever kernel it hits.
const PROCESSOR: &str = "EPYC,+svm,-cx16";

/// Arguments of `qemu-system-x86_64` for a machine whose files and sockets are in `directory`.
pub(crate) fn arguments(config: &Config, directory: &Path) -> Vec<OsString> {
    let mut line = CommandLine::default();
    line.text("-nodefaults -no-user-config -no-reboot -display none -nic none");
    // Firmware tables lie at the end of the memory below 4 GiB. With the first GiB only there, every other GiB is whole
    // and can be a hugepage.
    line.text("-M q35,usb=off,sata=off,vmport=off,max-ram-below-4g=1G");
    line.text(&format!("-cpu {PROCESSOR}"));
    line.text(if config.icount {
        "-accel tcg,thread=single -icount shift=0,sleep=off"
    } else {
        "-accel tcg,thread=multi"
    });
    processors_and_memory(config, &mut line);

    line.option("-kernel", config.kernel.as_os_str());
    line.option("-initrd", directory.join(INITRAMFS).as_os_str());
    line.option("-append", kernel_arguments(config));
    line.option("-serial", prefixed("file:", &directory.join(CONSOLE_LOG)));
    line.text("-device virtio-rng-pci -device virtio-serial-pci");
    for name in PORTS {
        port(name, &socket(directory, name), &mut line);
    }
    if let Some(share) = &config.share {
        line.option(
            "-fsdev",
            prefixed("local,id=share,security_model=none,multidevs=remap,path=", share),
        );
        line.text(&format!(
            "-device virtio-9p-pci,fsdev=share,mount_tag={SHARE_TAG}"
        ));
    }
    line.0
}

/// Where the caller listens for QEMU to connect a port.
pub(crate) fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.socket"))
}

fn port(name: &str, socket: &Path, line: &mut CommandLine) {
    line.option("-chardev", prefixed(&format!("socket,id={name},path="), socket));
    let device = if name == TERMINAL {
        "virtconsole"
    } else {
        "virtserialport"
    };
    line.text(&format!("-device {device},chardev={name},name={name}"));
}

/// One socket and one NUMA node for each of `config.nodes`; a machine of one node has none in its ACPI tables.
fn processors_and_memory(config: &Config, line: &mut CommandLine) {
    let cores = config.cpus / config.nodes / config.threads;
    line.text(&format!("-m {}M", config.memory >> 20));
    line.text(&format!(
        "-smp {},sockets={},cores={cores},threads={}",
        config.cpus, config.nodes, config.threads
    ));
    if config.nodes == 1 {
        return;
    }
    let cpus = config.cpus / config.nodes;
    let memory = (config.memory >> 20) / u64::from(config.nodes);
    for node in 0..config.nodes {
        let (first, last) = (node * cpus, (node + 1) * cpus - 1);
        line.text(&format!(
            "-object memory-backend-ram,id=memory{node},size={memory}M"
        ));
        line.text(&format!(
            "-numa node,nodeid={node},memdev=memory{node},cpus={first}-{last}"
        ));
    }
}

/// Hugepages are reserved by the kernel itself: only at boot are 1 GiB of adjoining memory certain to be free. The rate of
/// the time stamp counter is told, unless virtual time counts instructions, by which it is measured well.
fn kernel_arguments(config: &Config) -> String {
    let mut arguments = vec![String::from("console=ttyS0 panic=-1")];
    let khz = tsc::khz().filter(|_| !config.icount);
    arguments.extend(khz.map(|khz| format!("tsc_early_khz={khz}")));
    for (size, pages) in [("2M", config.hugepages_2m), ("1G", config.hugepages_1g)] {
        if pages > 0 {
            let share = pages / u64::from(config.nodes);
            let nodes: Vec<String> = (0..config.nodes).map(|node| format!("{node}:{share}")).collect();
            arguments.push(format!("hugepagesz={size} hugepages={}", nodes.join(",")));
        }
    }
    arguments.join(" ")
}

/// `prefix` and a path as one value. QEMU reads a comma as the end of a value, and two as a comma.
fn prefixed(prefix: &str, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut value = prefix.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        value.push(byte);
        if byte == b',' {
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

#[derive(Default)]
struct CommandLine(Vec<OsString>);

impl CommandLine {
    /// Appends options and values that hold no spaces.
    fn text(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("bzImage".into(), "busybox".into(), "cache".into())
    }

    fn line(config: &Config) -> String {
        let words = arguments(config, Path::new("/run/machine"));
        words
            .iter()
            .map(|word| word.to_str().expect("UTF-8"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_plain_machine_has_no_numa_nodes_and_no_share() {
        let line = line(&config());
        assert!(line.contains("-smp 2,sockets=1,cores=2,threads=1"), "{line}");
        assert!(line.contains("-accel tcg,thread=multi"), "{line}");
        assert!(!line.contains("-numa") && !line.contains("-fsdev"), "{line}");
        assert!(!line.contains("hugepages"), "{line}");
    }

    #[test]
    fn two_nodes_divide_processors_memory_and_hugepages() {
        let config = Config {
            cpus: 8,
            threads: 2,
            nodes: 2,
            memory: 5 << 30,
            hugepages_2m: 512,
            hugepages_1g: 2,
            ..config()
        };
        let line = line(&config);
        for part in [
            "-m 5120M -smp 8,sockets=2,cores=2,threads=2",
            "-object memory-backend-ram,id=memory1,size=2560M -numa node,nodeid=1,memdev=memory1,cpus=4-7",
            "hugepagesz=2M hugepages=0:256,1:256 hugepagesz=1G hugepages=0:1,1:1",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn instruction_counting_takes_one_thread() {
        let line = line(&Config {
            icount: true,
            ..config()
        });
        assert!(
            line.contains("-accel tcg,thread=single -icount shift=0,sleep=off"),
            "{line}"
        );
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        let line = line(&Config {
            share: Some("/a,b".into()),
            ..config()
        });
        assert!(line.contains("path=/a,,b -device"), "{line}");
    }

    #[test]
    fn a_space_in_a_path_stays_in_one_argument() {
        let config = Config {
            share: Some("/a b".into()),
            kernel: "/k/bz image".into(),
            ..config()
        };
        let words = arguments(&config, Path::new("/m"));
        assert!(words.iter().any(|word| word == "/k/bz image"));
        assert!(
            words
                .iter()
                .any(|word| word.to_string_lossy().ends_with("path=/a b"))
        );
    }
}
