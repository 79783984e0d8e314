//! Builds EIFs from images in every form, and looks into them with tools that are not ours: GNU cpio unpacks the ramdisks.
//! Owners and device nodes need root.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops where something unexpected happens"
)]

mod bench;
mod contents;
mod edge_cases;
mod images;
mod refused;
mod sources;
mod tar_writer;
