//! Measurements as they are printed.

use api::Measurements;
use eif::Pcr;

/// The printed form of an image's measurements; `pcr8` if it is signed.
pub(crate) fn of_image(measured: &eif::Measurements, pcr8: Option<&Pcr>) -> Measurements {
    Measurements {
        hash_algorithm: Measurements::HASH_ALGORITHM.to_owned(),
        pcr0: measured.pcr0.to_string(),
        pcr1: measured.pcr1.to_string(),
        pcr2: measured.pcr2.to_string(),
        pcr8: pcr8.map(Pcr::to_string),
    }
}
