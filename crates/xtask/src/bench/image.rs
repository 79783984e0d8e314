//! `cargo xtask bench image`: how long `nitro-cli build-enclave` takes for an image of 1 GiB in 20,000 files, and how much memory,
//! beside the least that could be done with the same bytes: `tar` collects them in one file, `sha384sum` hashes that.
//!
//! The image is built from a directory and from an OCI layout of one layer, which is not compressed: what decompression takes is
//! the compression's. All is on this host, with the image in the page cache. The aim is no more than 1.5 times the time, and no
//! more than 200 MiB.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cargo::{self, cargo};
use crate::error::{Error, at};
use crate::process;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Files, in directories of a hundred; their sizes vary around the mean.
const FILES: u64 = 20_000;
const SIZE: u64 = 1 << 30;
const FILES_PER_DIRECTORY: u64 = 100;
/// The aim: time as a multiple, and memory in MiB.
const TIME_AIM: f64 = 1.5;
const MEMORY_AIM: f64 = 200.0;
/// How often the memory of a running build is looked at. What is read is the most so far, so only growth within the last moments
/// can be missed.
const SAMPLING: Duration = Duration::from_millis(5);

/// One way to handle the image: median time, and most memory.
#[derive(Clone, Copy, Debug)]
struct Figures {
    seconds: f64,
    mib: f64,
}

/// Measures and prints a table.
pub(super) fn run(workspace: &Workspace, runs: u32) -> Result<ExitCode, Error> {
    let mut steps = Steps::new(3);
    let program = steps.quiet("nitro-cli", || built(workspace))?;
    let place = workspace.output("bench-image");
    steps.quiet("image", || make(&place))?;
    steps.announce("measuring");
    let log = workspace.log("bench-image");
    let measure = |command: &dyn Fn() -> Command| median(runs, command, &log);

    let tar = measure(&|| command("tar", &["-cf", "image.tar", "-C", "root/rootfs", "."], &place))?;
    let hash = measure(&|| command("sha384sum", &["image.tar"], &place))?;
    let build = |source: &'static str| {
        measure(&|| {
            let program = program.to_string_lossy();
            let arguments = [
                "build-enclave",
                "--quiet",
                "--docker-uri",
                source,
                "--output-file",
                "image.eif",
            ];
            let mut command = command(&program, &arguments, &place);
            command.env("NITRO_CLI_BLOBS", place.join("blobs"));
            command
        })
    };
    let rows = [("directory", build("root")?), ("OCI layout", build("layout")?)];
    for name in ["image.tar", "image.eif"] {
        let path = place.join(name);
        fs::remove_file(&path).map_err(at("remove", &path))?;
    }
    let (text, is_good) = table(tar, hash, &rows);
    print!("{text}");
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn built(workspace: &Workspace) -> Result<PathBuf, Error> {
    let mut build = cargo(workspace, "build");
    cargo::release_static(&mut build)
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--package", "nitro-cli"]);
    let messages = process::captured(&mut build, &workspace.log("nitro-cli"))?;
    cargo::executables(&messages)
        .into_iter()
        .find(|executable| executable.kind == "bin" && executable.name == "nitro-cli")
        .map(|executable| executable.path)
        .ok_or_else(|| Error::NotBuilt("nitro-cli".into()))
}

fn command(program: &str, arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory);
    command
}

/// Runs a command several times; its output goes to `log`.
fn median(runs: u32, command: &dyn Fn() -> Command, log: &Path) -> Result<Figures, Error> {
    let mut seconds = Vec::new();
    let mut mib: f64 = 0.0;
    for _ in 0..runs {
        let mut command = command();
        let output = File::create(log).map_err(at("create", log))?;
        let copy = output.try_clone().map_err(at("open", log))?;
        let begin = Instant::now();
        let spawn = |source| Error::Spawn {
            program: "the measured program".into(),
            source,
        };
        let mut child = command.stdout(output).stderr(copy).spawn().map_err(spawn)?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(spawn)? {
                break status;
            }
            mib = mib.max(peak_mib(child.id()).unwrap_or_default());
            thread::sleep(SAMPLING);
        };
        seconds.push(begin.elapsed().as_secs_f64());
        if !status.success() {
            return Err(Error::Failed {
                command: format!("{command:?}"),
                status,
                log: log.to_owned(),
                tail: fs::read_to_string(log).unwrap_or_default(),
            });
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Figures {
        seconds: seconds[seconds.len() / 2],
        mib,
    })
}

/// The most physical memory that a process has had (`VmHWM`); none if it has ended.
fn peak_mib(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Side by side, and whether the aims are met.
fn table(tar: Figures, hash: Figures, builds: &[(&str, Figures)]) -> (String, bool) {
    let least = tar.seconds + hash.seconds;
    let mut text = format!(
        "{:<24} {:>8} {:>8} {:>9}\n",
        "1 GiB in 20,000 files", "time", "times", "memory"
    );
    let mut row = |name: &str, figures: Figures, multiple: String| {
        text = format!(
            "{text}{name:<24} {:>6.2} s {multiple:>8} {:>5.0} MiB\n",
            figures.seconds, figures.mib
        );
    };
    row("tar", tar, String::new());
    row("sha384sum", hash, String::new());
    let both = Figures {
        seconds: least,
        mib: tar.mib.max(hash.mib),
    };
    row("tar and sha384sum", both, "1.00".to_owned());
    let mut is_good = true;
    for (name, figures) in builds {
        let multiple = figures.seconds / least;
        row(&format!("build from {name}"), *figures, format!("{multiple:.2}"));
        is_good &= multiple <= TIME_AIM && figures.mib <= MEMORY_AIM;
    }
    let verdict = if is_good { "met" } else { "missed" };
    text = format!("{text}aim: {TIME_AIM} times, {MEMORY_AIM:.0} MiB: {verdict}\n");
    (text, is_good)
}

/// Makes directory, layout and blobs, unless they are there.
fn make(place: &Path) -> Result<(), Error> {
    let complete = place.join("complete");
    if complete.exists() {
        return Ok(());
    }
    let root = place.join("root/rootfs");
    for index in 0..FILES {
        let directory = root.join(format!("usr/share/data-{:03}", index / FILES_PER_DIRECTORY));
        let path = directory.join(format!("file-{index:05}"));
        fs::create_dir_all(&directory)
            .and_then(|()| write_file(&path, index))
            .map_err(at("write", &path))?;
    }
    let mut files = vec![("root/cmd".to_owned(), b"/usr/bin/app\n".to_vec())];
    let blobs: [(&str, &[u8]); 4] = [
        ("bzImage", b"kernel"),
        (
            "bzImage.config",
            b"#\n#\n# Linux/x86_64 6.12.0 Kernel Configuration\n",
        ),
        ("cmdline", b"console=ttyS0"),
        ("init", b"init"),
    ];
    files.extend(blobs.map(|(name, bytes)| (format!("blobs/{name}"), bytes.to_vec())));
    let layer = make_layer(place)?;
    files.extend(layout(&layer));
    for (name, bytes) in files {
        let path = place.join(name);
        let parent = path.parent().unwrap_or(place);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(at("write", &path))?;
    }
    File::create(&complete).map(drop).map_err(at("create", &complete))
}

/// Bytes that look like chance, in sizes from nearly none to twice the mean.
fn write_file(path: &Path, index: u64) -> std::io::Result<()> {
    let mean = SIZE / FILES;
    let size = (index * 7919) % (2 * mean);
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut file = BufWriter::new(File::create(path)?);
    for _ in 0..size.div_ceil(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()
}

/// The descriptor of the layer that `tar` makes of the directory, put where a layout has it.
fn make_layer(place: &Path) -> Result<Value, Error> {
    let blobs = place.join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
    let archive = place.join("layer.tar");
    let mut tar = command("tar", &["-cf", "layer.tar", "-C", "root/rootfs", "."], place);
    process::logged(&mut tar, &place.join("tar.log"))?;
    let mut hasher = Sha256::new();
    let mut file = File::open(&archive).map_err(at("open", &archive))?;
    let size = std::io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(at("read", &archive))?;
    let digest = hex(&hasher.finalize());
    let blob = blobs.join(&digest);
    fs::rename(&archive, &blob).map_err(at("rename", &archive))?;
    Ok(json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": format!("sha256:{digest}"),
        "size": size,
    }))
}

/// Hashes what is written.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The other files of the layout.
fn layout(layer: &Value) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(
        "layout/oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut add = |kind: &str, document: &Value| {
        let bytes = document.to_string().into_bytes();
        let digest = hex(&Sha256::digest(&bytes));
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        });
        files.push((format!("layout/blobs/sha256/{digest}"), bytes));
        descriptor
    };
    let config = add(
        "config",
        &json!({
            "os": "linux",
            "architecture": "amd64",
            "config": {"Cmd": ["/usr/bin/app"]},
            "rootfs": {"type": "layers", "diff_ids": [&layer["digest"]]},
        }),
    );
    let manifest = add(
        "manifest",
        &json!({"schemaVersion": 2, "config": config, "layers": [layer]}),
    );
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    files.push(("layout/index.json".to_owned(), index.into_bytes()));
    files
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_whether_the_aims_are_met() {
        let figures = |seconds, mib| Figures { seconds, mib };
        let (tar, hash) = (figures(1.0, 2.0), figures(3.0, 4.0));

        let (text, is_good) = table(tar, hash, &[("directory", figures(6.0, 200.0))]);
        assert!(is_good, "{text}");
        assert!(
            text.contains("build from directory       6.00 s     1.50   200 MiB\n"),
            "{text}"
        );
        for missed in [figures(6.1, 10.0), figures(1.0, 201.0)] {
            let (text, is_good) = table(
                tar,
                hash,
                &[("directory", figures(1.0, 1.0)), ("OCI layout", missed)],
            );
            assert!(!is_good && text.ends_with("missed\n"), "{text}");
        }
    }
}
