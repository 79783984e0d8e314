//! PCR0, PCR1 and PCR2 from section data that streams by.

use std::thread;

use sha2::{Digest, Sha384};

use crate::{Pcr, SectionKind};

/// Pieces of at least this many bytes are worth a second thread, which costs as much as hashing some 20 KiB.
const PARALLEL_LEN: usize = 256 << 10;

/// What an image is, whoever built or signed it. PCR8, the signer, is in [`crate::Inspection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurements {
    /// Kernel, command line and every ramdisk.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk.
    pub pcr1: Pcr,
    /// Every ramdisk but the first: the application.
    pub pcr2: Pcr,
}

/// Hashes section data in file order: [`begin`](Self::begin) each section, then [`update`](Self::update) with its data in
/// pieces of any size, and [`finish`](Self::finish) after the last.
///
/// PCR0 and PCR1 cover the same bytes up to the second ramdisk, so until there one hash serves both. Each byte is hashed
/// once, and those of the second ramdisk and later ones once more for PCR2. Large pieces are hashed where they are,
/// nothing is allocated.
#[derive(Debug, Clone)]
pub struct Measurer {
    /// PCR0; and PCR1 as long as `bootstrap` is none.
    image: Sha384,
    /// PCR1, from the second ramdisk on.
    bootstrap: Option<Sha384>,
    /// PCR2.
    application: Sha384,
    /// Where the bytes of the section that is being fed go.
    current: Target,
    ramdisks: usize,
    is_parallel: bool,
}

/// Which hashes a section goes to.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// Not measured.
    Nothing,
    /// PCR0 and PCR1.
    ImageAndBootstrap,
    /// PCR0 and PCR2.
    ImageAndApplication,
}

impl Measurer {
    /// Has seen no section.
    pub fn new() -> Self {
        Self {
            image: Sha384::new(),
            bootstrap: None,
            application: Sha384::new(),
            current: Target::Nothing,
            ramdisks: 0,
            is_parallel: false,
        }
    }

    /// Hashes large pieces of what both PCR0 and PCR2 cover with two threads. For whoever builds: a process that is to have one
    /// thread, such as a VMM, does without.
    #[must_use]
    pub fn in_parallel(mut self) -> Self {
        self.is_parallel = true;
        self
    }

    /// The data that follows belongs to the next section of the file, a `kind`.
    pub fn begin(&mut self, kind: SectionKind) {
        self.current = match kind {
            SectionKind::Kernel | SectionKind::Cmdline => Target::ImageAndBootstrap,
            SectionKind::Ramdisk => self.next_ramdisk(),
            SectionKind::Signature | SectionKind::Metadata => Target::Nothing,
        };
    }

    fn next_ramdisk(&mut self) -> Target {
        self.ramdisks = self.ramdisks.saturating_add(1);
        if self.ramdisks == 1 {
            return Target::ImageAndBootstrap;
        }
        if self.bootstrap.is_none() {
            self.bootstrap = Some(self.image.clone());
        }
        Target::ImageAndApplication
    }

    /// Takes the next bytes of the section that was begun last.
    pub fn update(&mut self, data: &[u8]) {
        match self.current {
            Target::Nothing => {}
            Target::ImageAndBootstrap => {
                self.image.update(data);
                // A command line after the second ramdisk is unusual, but it counts where it stands.
                if let Some(bootstrap) = &mut self.bootstrap {
                    bootstrap.update(data);
                }
            }
            Target::ImageAndApplication => self.update_image_and_application(data),
        }
    }

    fn update_image_and_application(&mut self, data: &[u8]) {
        let (image, application) = (&mut self.image, &mut self.application);
        let mut is_taken = false;
        if self.is_parallel && data.len() >= PARALLEL_LEN {
            thread::scope(|scope| {
                let other = thread::Builder::new().spawn_scoped(scope, || application.update(data));
                is_taken = other.is_ok();
                image.update(data);
            });
        } else {
            image.update(data);
        }
        // Where there are no more threads to be had, one does it all.
        if !is_taken {
            application.update(data);
        }
    }

    /// The measurements of everything taken.
    pub fn finish(self) -> Measurements {
        let pcr0 = Pcr::of_digest(self.image.finalize().into());
        Measurements {
            pcr0,
            pcr1: self
                .bootstrap
                .map_or(pcr0, |bootstrap| Pcr::of_digest(bootstrap.finalize().into())),
            pcr2: Pcr::of_digest(self.application.finalize().into()),
        }
    }
}

impl Default for Measurer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use SectionKind::{Cmdline, Kernel, Metadata, Ramdisk, Signature};

    use proptest::prelude::*;

    use super::*;

    fn measure(sections: &[(SectionKind, &str)]) -> Measurements {
        let mut measurer = Measurer::new();
        for (kind, data) in sections {
            measurer.begin(*kind);
            measurer.update(data.as_bytes());
        }
        measurer.finish()
    }

    #[test]
    fn two_threads_measure_the_same() {
        let large: Vec<u8> = (0..251).cycle().take(3 * PARALLEL_LEN).collect();
        let measured = |mut measurer: Measurer| {
            for (kind, data) in [
                (Kernel, &b"K"[..]),
                (Ramdisk, &large),
                (Ramdisk, b"R2"),
                (Ramdisk, &large),
            ] {
                measurer.begin(kind);
                measurer.update(data);
            }
            measurer.finish()
        };
        assert_eq!(measured(Measurer::new().in_parallel()), measured(Measurer::new()));
    }

    #[test]
    fn two_ramdisks_give_the_known_answers() {
        let measured = measure(&[(Kernel, "K"), (Cmdline, "C"), (Ramdisk, "R1"), (Ramdisk, "R2")]);

        assert_eq!(
            measured.pcr0.to_string(),
            "89427b25b8c6dc97577cb4257cb4bfab42a869f0f9ba8fe683690f616715797ead72673c1918835d1615216fb5c8769e"
        );
        assert_eq!(
            measured.pcr1.to_string(),
            "5cfb73228c84599832f72e7c7df5191467530cec6c016cea4c9cd0b20141b4b47a476341036a7373ea241aa9d4156a41"
        );
        assert_eq!(
            measured.pcr2.to_string(),
            "e52b3d6d3661ed6edeafaa4d330cfb9fb9f237304191a23edca8a97fb126043594cb522cb845379441668c8cc1c8adc5"
        );
    }

    #[test]
    fn one_ramdisk_makes_pcr1_equal_pcr0_and_pcr2_that_of_nothing() {
        let measured = measure(&[(Kernel, "K"), (Cmdline, "C"), (Ramdisk, "R1")]);

        assert_eq!(measured.pcr0, Pcr::of_data(b"KCR1"));
        assert_eq!(measured.pcr1, measured.pcr0);
        assert_eq!(measured.pcr2, Pcr::of_data(b""));
    }

    #[test]
    fn metadata_and_signature_are_not_measured() {
        let plain = measure(&[(Kernel, "K"), (Cmdline, "C"), (Ramdisk, "R1"), (Ramdisk, "R2")]);
        let full = measure(&[
            (Kernel, "K"),
            (Cmdline, "C"),
            (Metadata, "{}"),
            (Ramdisk, "R1"),
            (Ramdisk, "R2"),
            (Signature, "S"),
        ]);

        assert_eq!(full, plain);
    }

    #[test]
    fn three_ramdisks_and_a_late_command_line_count_in_file_order() {
        let measured = measure(&[
            (Kernel, "K"),
            (Ramdisk, "R1"),
            (Ramdisk, "R2"),
            (Cmdline, "C"),
            (Ramdisk, "R3"),
        ]);

        assert_eq!(measured.pcr0, Pcr::of_data(b"KR1R2CR3"));
        assert_eq!(measured.pcr1, Pcr::of_data(b"KR1C"));
        assert_eq!(measured.pcr2, Pcr::of_data(b"R2R3"));
    }

    #[test]
    fn the_size_of_the_pieces_does_not_matter() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut whole = Measurer::new();
        let mut pieces = Measurer::new();
        for kind in [Kernel, Cmdline, Ramdisk, Ramdisk] {
            whole.begin(kind);
            whole.update(&data);
            pieces.begin(kind);
            data.chunks(7).for_each(|piece| pieces.update(piece));
        }

        assert_eq!(pieces.finish(), whole.finish());
    }

    proptest! {
        /// A changed byte changes exactly the PCRs that its section is part of, and no other byte any.
        #[test]
        fn a_changed_byte_changes_exactly_the_pcrs_it_must(
            sections in proptest::array::uniform6(proptest::collection::vec(any::<u8>(), 1..100)),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..=255,
        ) {
            let kinds = [
                (Kernel, [true, true, false]),
                (Cmdline, [true, true, false]),
                (Metadata, [false; 3]),
                (Ramdisk, [true, true, false]),
                (Ramdisk, [true, false, true]),
                (Signature, [false; 3]),
            ];
            let measure = |sections: &[Vec<u8>]| {
                let mut measurer = Measurer::new();
                for ((kind, _), data) in kinds.iter().zip(sections) {
                    measurer.begin(*kind);
                    measurer.update(data);
                }
                let Measurements { pcr0, pcr1, pcr2 } = measurer.finish();
                [pcr0, pcr1, pcr2]
            };
            let before = measure(&sections);
            for (number, (kind, changes)) in kinds.iter().enumerate() {
                let mut changed = sections.clone();
                let byte = at.index(changed[number].len());
                changed[number][byte] ^= flip;

                let after = measure(&changed);

                let differs = [0, 1, 2].map(|pcr| before[pcr] != after[pcr]);
                prop_assert_eq!(differs, *changes, "{:?}", kind);
            }
        }
    }
}
