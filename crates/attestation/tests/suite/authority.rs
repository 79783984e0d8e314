//! An authority of five levels, and one enclave of it.

use std::convert::Infallible;

use attestation::chain::{CaBundle, Issuer, ModuleId, Region, issue_root};
use attestation::{
    AttestationContent, Certificate, MapForm, Policy, Signer, SoftwareKey, Timestamp, TrustAnchor, write,
};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

/// Randomness that is the same each time: SHA-256 of a seed and a counter.
pub(crate) struct TestRng {
    seed: u64,
    counter: u64,
}

impl TestRng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }
}

impl TryRng for TestRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(32) {
            let block = [self.seed.to_be_bytes(), self.counter.to_be_bytes()].concat();
            chunk.copy_from_slice(&Sha256::digest(block)[..chunk.len()]);
            self.counter += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for TestRng {}

pub(crate) struct Authority {
    pub(crate) bundle: CaBundle,
    pub(crate) host_key: SoftwareKey,
    pub(crate) region: Region,
    pub(crate) module: ModuleId,
    pub(crate) leaf: Certificate,
    pub(crate) leaf_key: SoftwareKey,
}

impl Authority {
    /// Everything made at [`NOW`].
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut TestRng::new(seed);
        let keys: [SoftwareKey; 5] = std::array::from_fn(|_| SoftwareKey::generate(rng));
        let [root_key, regional_key, zonal_key, host_key, leaf_key] = keys;
        let region: Region = "eu-central-1".parse().unwrap();
        let module = ModuleId {
            instance: "i-0bee92034f3d60691".parse().unwrap(),
            slot_uid: 0x0194_3c5e_aab3_ad6a,
        };
        let root = issue_root(&root_key, NOW, rng).unwrap();
        let regional = Issuer::new(&root, &root_key)
            .unwrap()
            .issue_regional(&region, &regional_key.public_key(), NOW, rng)
            .unwrap();
        let zonal = Issuer::new(&regional, &regional_key)
            .unwrap()
            .issue_zonal(&region, &zonal_key.public_key(), NOW, rng)
            .unwrap();
        let host = Issuer::new(&zonal, &zonal_key)
            .unwrap()
            .issue_host(&module.instance, &region, &host_key.public_key(), NOW, rng)
            .unwrap();
        let leaf = Issuer::new(&host, &host_key)
            .unwrap()
            .issue_enclave(&module, &region, &leaf_key.public_key(), NOW)
            .unwrap();
        Self {
            bundle: CaBundle::new(vec![root, regional, zonal, host], NOW).unwrap(),
            host_key,
            region,
            module,
            leaf,
            leaf_key,
        }
    }

    pub(crate) fn root(&self) -> TrustAnchor {
        TrustAnchor::new(self.bundle.root().clone()).unwrap()
    }

    /// Sixteen registers, of which 0 to 4 hold something, and no optional field.
    pub(crate) fn content(&self) -> AttestationContent {
        let pcrs = (0..16).map(|index| (index, if index < 5 { [index + 1; 48] } else { [0; 48] }));
        AttestationContent {
            module_id: self.module.to_string(),
            timestamp: NOW,
            pcrs: pcrs.collect(),
            public_key: None,
            user_data: None,
            nonce: None,
        }
    }

    pub(crate) fn write(&self, content: &AttestationContent) -> Vec<u8> {
        self.write_as(content, MapForm::Definite)
    }

    pub(crate) fn write_as(&self, content: &AttestationContent, form: MapForm) -> Vec<u8> {
        write(content, &self.leaf, &self.bundle, &self.leaf_key, form).unwrap()
    }
}

/// Nothing is expected; debug mode is taken.
pub(crate) fn anything() -> Policy {
    Policy {
        allow_debug: true,
        ..Policy::default()
    }
}
