//! The metadata section: where an image comes from, as JSON. It is not measured, so nothing in it can be relied on.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{EifError, Section};

/// The most bytes of metadata that are read or written. Real ones have a few kilobytes, nearly all of it
/// [`Metadata::docker_info`].
pub const MAX_METADATA: u64 = 1024 * 1024;

/// What an image says of itself. Every key must be in the JSON; others are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    /// A name for people.
    pub image_name: String,
    /// A version for people; often the container image's id.
    pub image_version: String,
    /// What built it.
    pub build_metadata: BuildMetadata,
    /// What the container engine said of the image it was made from.
    #[serde(deserialize_with = "present")]
    pub docker_info: Option<Value>,
    /// What the user added.
    #[serde(deserialize_with = "present")]
    pub custom_metadata: Option<Value>,
}

/// What built an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildMetadata {
    /// RFC 3339.
    pub build_time: String,
    /// Name of the program.
    pub build_tool: String,
    /// Version of the program.
    pub build_tool_version: String,
    /// The kernel's operating system: `Linux`.
    pub operating_system: String,
    /// The kernel's version.
    pub kernel_version: String,
}

impl Metadata {
    /// Parses the data of `section`.
    ///
    /// # Errors
    /// [`EifError::Metadata`] if it is not JSON, lacks a key, or has a value of another type.
    pub fn parse(section: &Section, data: &[u8]) -> Result<Self, EifError> {
        serde_json::from_slice(data).map_err(|source| EifError::Metadata {
            offset: section.offset,
            source,
        })
    }
}

/// An optional value whose key must be there: `null` is none. Without this, serde takes a missing key for none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Option::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::SectionKind;

    const SECTION: Section = Section {
        kind: SectionKind::Metadata,
        offset: 0x1234,
        size: 0,
    };

    fn complete() -> Value {
        json!({
            "ImageName": "hello",
            "ImageVersion": "1.0",
            "BuildMetadata": {
                "BuildTime": "2024-01-01T00:00:00+00:00",
                "BuildTool": "nitro-cli",
                "BuildToolVersion": "1.5.0",
                "OperatingSystem": "Linux",
                "KernelVersion": "6.12.0"
            },
            "DockerInfo": {"Id": "sha256:00"},
            "CustomMetadata": null
        })
    }

    fn parse(value: &Value) -> Result<Metadata, EifError> {
        Metadata::parse(&SECTION, value.to_string().as_bytes())
    }

    #[test]
    fn every_field_is_read() {
        let metadata = parse(&complete()).unwrap();

        assert_eq!(
            metadata,
            Metadata {
                image_name: "hello".into(),
                image_version: "1.0".into(),
                build_metadata: BuildMetadata {
                    build_time: "2024-01-01T00:00:00+00:00".into(),
                    build_tool: "nitro-cli".into(),
                    build_tool_version: "1.5.0".into(),
                    operating_system: "Linux".into(),
                    kernel_version: "6.12.0".into(),
                },
                docker_info: Some(json!({"Id": "sha256:00"})),
                custom_metadata: None,
            }
        );
    }

    #[test]
    fn each_missing_key_is_an_error_that_names_it() {
        let keys = [
            "/ImageName",
            "/ImageVersion",
            "/BuildMetadata",
            "/DockerInfo",
            "/CustomMetadata",
        ];
        let build_keys = [
            "BuildTime",
            "BuildTool",
            "BuildToolVersion",
            "OperatingSystem",
            "KernelVersion",
        ]
        .map(|key| format!("/BuildMetadata/{key}"));
        for path in keys.map(str::to_owned).iter().chain(&build_keys) {
            let mut value = complete();
            let (parent, key) = path.rsplit_once('/').unwrap();
            value
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(key)
                .unwrap();

            let error = parse(&value).unwrap_err();

            assert_eq!(error.offset(), 0x1234);
            let EifError::Metadata { source, .. } = error else {
                panic!("{path}: {error}")
            };
            assert!(
                source.to_string().contains(&format!("missing field `{key}`")),
                "{path}: {source}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_other_types_refused() {
        let mut value = complete();
        value["Later"] = json!(1);
        assert!(parse(&value).is_ok());

        value["ImageName"] = json!(1);
        assert!(matches!(parse(&value), Err(EifError::Metadata { .. })));
        for data in [&b""[..], b"{", b"[]", b"null", b"{}{}", b"\xff\xff"] {
            assert!(
                matches!(Metadata::parse(&SECTION, data), Err(EifError::Metadata { .. })),
                "{data:?}"
            );
        }
    }

    #[test]
    fn keys_are_written_in_the_order_of_aws_and_without_spaces() {
        let mut metadata = parse(&complete()).unwrap();
        metadata.docker_info = None;

        assert_eq!(
            serde_json::to_string(&metadata).unwrap(),
            concat!(
                r#"{"ImageName":"hello","ImageVersion":"1.0","BuildMetadata":{"#,
                r#""BuildTime":"2024-01-01T00:00:00+00:00","BuildTool":"nitro-cli","BuildToolVersion":"1.5.0","#,
                r#""OperatingSystem":"Linux","KernelVersion":"6.12.0"},"DockerInfo":null,"CustomMetadata":null}"#
            )
        );
    }
}
