//! A platform that vouches for whatever it is told: an authority of five levels, and one enclave of it.

use attest::Nonce;
use attestation::chain::{CaBundle, Issuer, ModuleId, Region, issue_root};
use attestation::{
    AttestationContent, Certificate, MapForm, PCR_LEN, Signer, SoftwareKey, Timestamp, TrustAnchor, write,
};
use getrandom::SysRng;
use rand_core::UnwrapErr;

/// 2026-01-01T00:00:00Z, when everything of [`Platform::new`] was made.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

/// PCR 0 of the enclave.
pub(crate) const PCR0: [u8; PCR_LEN] = [0x42; PCR_LEN];

pub(crate) struct Platform {
    made: Timestamp,
    bundle: CaBundle,
    module: ModuleId,
    leaf: Certificate,
    leaf_key: SoftwareKey,
}

impl Platform {
    pub(crate) fn new() -> Self {
        Self::made_at(NOW)
    }

    pub(crate) fn made_at(made: Timestamp) -> Self {
        let rng = &mut UnwrapErr(SysRng);
        let keys: [SoftwareKey; 5] = std::array::from_fn(|_| SoftwareKey::generate(rng));
        let [root_key, regional_key, zonal_key, host_key, leaf_key] = keys;
        let region: Region = "local".parse().unwrap();
        let module = ModuleId {
            instance: "i-0000000000000000".parse().unwrap(),
            slot_uid: 1,
        };
        let root = issue_root(&root_key, made, rng).unwrap();
        let regional = Issuer::new(&root, &root_key)
            .unwrap()
            .issue_regional(&region, &regional_key.public_key(), made, rng)
            .unwrap();
        let zonal = Issuer::new(&regional, &regional_key)
            .unwrap()
            .issue_zonal(&region, &zonal_key.public_key(), made, rng)
            .unwrap();
        let host = Issuer::new(&zonal, &zonal_key)
            .unwrap()
            .issue_host(&module.instance, &region, &host_key.public_key(), made, rng)
            .unwrap();
        let leaf = Issuer::new(&host, &host_key)
            .unwrap()
            .issue_enclave(&module, &region, &leaf_key.public_key(), made)
            .unwrap();
        Self {
            made,
            bundle: CaBundle::new(vec![root, regional, zonal, host], made).unwrap(),
            module,
            leaf,
            leaf_key,
        }
    }

    pub(crate) fn root(&self) -> TrustAnchor {
        TrustAnchor::new(self.bundle.root().clone()).unwrap()
    }

    /// What the security module of an enclave says, made when the platform was.
    pub(crate) fn content(&self, nonce: &Nonce, public_key: &[u8]) -> AttestationContent {
        AttestationContent {
            module_id: self.module.to_string(),
            timestamp: self.made,
            pcrs: [(0, PCR0), (1, [1; PCR_LEN]), (2, [2; PCR_LEN])].into(),
            public_key: Some(public_key.to_vec()),
            user_data: None,
            nonce: Some(nonce.to_vec()),
        }
    }

    pub(crate) fn document(&self, content: &AttestationContent) -> Vec<u8> {
        write(
            content,
            &self.leaf,
            &self.bundle,
            &self.leaf_key,
            MapForm::Definite,
        )
        .unwrap()
    }
}
