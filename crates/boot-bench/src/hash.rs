//! SHA-384 over an EIF and nothing else: the part of a start that an enclave cannot do without.
//!
//! The measured sections are in memory before the clock starts, so neither reading nor page faults count.

use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use eif::{Layout, Measurements, Measurer, SectionKind};

use bench::at;

use crate::error::Error;

/// How long the same code as in the VMM takes over the same bytes.
pub(crate) fn time(eif: &Path) -> Result<Duration, Error> {
    let sections = read(eif)?;
    let started = Instant::now();
    black_box(measure(&sections));
    Ok(started.elapsed())
}

fn read(path: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, Error> {
    let file = File::open(path).map_err(at("open", path))?;
    let size = file.metadata().map_err(at("read", path))?.len();
    let layout = Layout::read(&file, size)?;
    let mut sections = Vec::with_capacity(layout.sections.len());
    for section in &layout.sections {
        let mut bytes = vec![0; usize::try_from(section.size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, section.offset)
            .map_err(at("read", path))?;
        sections.push((section.kind, bytes));
    }
    Ok(sections)
}

fn measure(sections: &[(SectionKind, Vec<u8>)]) -> Measurements {
    let mut measurer = Measurer::new();
    for (kind, bytes) in sections {
        measurer.begin(*kind);
        measurer.update(bytes);
    }
    measurer.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_timed_is_the_measurement_of_the_image() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("vmlinux");
        fs::write(&kernel, vec![1; 300_000]).unwrap();
        let image = crate::guest::build(&kernel, directory.path()).unwrap();

        assert_eq!(measure(&read(&image.path).unwrap()), image.measurements);
        assert!(time(&image.path).unwrap() > Duration::ZERO);
        assert!(time(&kernel).is_err());
    }
}
