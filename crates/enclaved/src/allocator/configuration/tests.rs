use super::*;
use proptest::prelude::*;
use std::fmt::Write;
use std::fs;

fn parsed(text: &str) -> Configuration {
    Configuration::parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{text:?}: {problem}"))
}

fn single(memory_mib: u64, cpus: CpuRequest) -> Configuration {
    Configuration {
        requests: vec![Request {
            place: Place::Whole,
            memory_mib,
            cpus,
        }],
    }
}

fn pool(cpus: &[u32]) -> CpuRequest {
    CpuRequest::Pool(cpus.iter().copied().collect())
}

#[test]
fn awss_flat_form_is_read_with_and_without_its_first_line() {
    for (text, expected) in [
        (
            "---\nmemory_mib: 512\ncpu_count: 2\n",
            single(512, CpuRequest::Count(2)),
        ),
        (
            "cpu_count: 4\nmemory_mib: 3000",
            single(3000, CpuRequest::Count(4)),
        ),
        (
            "# a comment\n---\n# another\nmemory_mib: \"512\"\ncpu_count: '2'\n",
            single(512, CpuRequest::Count(2)),
        ),
        (
            "---\nmemory_mib: 64\ncpu_pool: 2,3,6-9\n",
            single(64, pool(&[2, 3, 6, 7, 8, 9])),
        ),
        (
            "memory_mib: 64\ncpu_pool: \"2-3\" # why\n",
            single(64, pool(&[2, 3])),
        ),
        ("memory_mib: 64\ncpu_pool: 7\n", single(64, pool(&[7]))),
        ("{memory_mib: 64, cpu_pool: '1,2'}", single(64, pool(&[1, 2]))),
    ] {
        assert_eq!(parsed(text), expected, "{text:?}");
    }
}

#[test]
fn the_list_form_has_one_reservation_for_each_entry_in_order() {
    let configuration =
        parsed("---\n- memory_mib: 512\n  cpu_count: 2\n- memory_mib: 1024\n  cpu_pool: 2,3,6-9\n");

    let expected = [
        (Place::Entry(1), 512, CpuRequest::Count(2)),
        (Place::Entry(2), 1024, pool(&[2, 3, 6, 7, 8, 9])),
    ];
    let expected = expected.map(|(place, memory_mib, cpus)| Request {
        place,
        memory_mib,
        cpus,
    });
    assert_eq!(configuration.requests, expected);
}

#[test]
fn our_default_file_is_read_and_says_the_default() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/allocator.yaml");

    let configuration = Configuration::read(Path::new(file)).unwrap().unwrap();

    assert_eq!(configuration, Configuration::default());
}

/// What the message must say of each text that is wrong.
const WRONG: &[(&str, &[&str])] = &[
    ("", &["reserves nothing", "`memory_mib: 512`"]),
    ("---\n# nothing\n", &["reserves nothing"]),
    ("[]", &["reserves nothing"]),
    ("{}", &["memory_mib is missing"]),
    (
        "memory_mib 512",
        &["found \"memory_mib 512\"", "`memory_mib: 512`"],
    ),
    (
        "- 512\n- 2\n",
        &["entry 1: found 512", "or a list of such entries"],
    ),
    ("cpu_count: 2\n", &["memory_mib is missing", "`memory_mib: 512`"]),
    ("memory_mib: 512\n", &["cpu_count or cpu_pool is missing"]),
    (
        "memory_mib: 512\ncpu_count: 2\ncpu_pool: 2,3\n",
        &["cpu_count and cpu_pool exclude each other"],
    ),
    (
        "memory_mib: 512\ncpu_cuont: 2\n",
        &["unknown key \"cpu_cuont\"", "cpu_count or cpu_pool"],
    ),
    ("512: 2\n", &["unknown key 512"]),
    (
        "memory_mib:\ncpu_count: 2\n",
        &["memory_mib has no value", "`memory_mib: 512`"],
    ),
    (
        "memory_mib: 512\ncpu_pool: ''\n",
        &["cpu_pool has no value", "2,3,6-9"],
    ),
    (
        "memory_mib: 512\ncpu_count: ~\n",
        &["cpu_count has no value", "`cpu_count: 2`"],
    ),
    (
        "memory_mib: 0\ncpu_count: 2\n",
        &["memory_mib is 0", "above zero"],
    ),
    (
        "memory_mib: 512\ncpu_count: 0\n",
        &["cpu_count is 0", "above zero"],
    ),
    ("memory_mib: -1\ncpu_count: 2\n", &["memory_mib is -1"]),
    ("memory_mib: 1.5\ncpu_count: 2\n", &["memory_mib is 1.5"]),
    ("memory_mib: 512\ncpu_count: 2.0\n", &["cpu_count is 2.0"]),
    (
        "memory_mib: 512M\ncpu_count: 2\n",
        &["memory_mib is \"512M\"", "whole number of MiB"],
    ),
    ("memory_mib: 1_024\ncpu_count: 2\n", &["memory_mib is \"1_024\""]),
    ("memory_mib: true\ncpu_count: 2\n", &["memory_mib is true"]),
    ("memory_mib: [512]\ncpu_count: 2\n", &["memory_mib is a list"]),
    (
        "memory_mib: {a: 1}\ncpu_count: 2\n",
        &["memory_mib is a group of keys"],
    ),
    (
        "memory_mib: 18446744073709551616\ncpu_count: 2\n",
        &["memory_mib is"],
    ),
    (
        "memory_mib: 512\ncpu_count: 4294967296\n",
        &["cpu_count is 4294967296"],
    ),
    (
        "memory_mib: 512\ncpu_pool: 2,,3\n",
        &["cpu_pool is \"2,,3\"", "`cpu_pool: 2,3,6-9`"],
    ),
    ("memory_mib: 512\ncpu_pool: 9-6\n", &["cpu_pool is \"9-6\""]),
    ("memory_mib: 512\ncpu_pool: all\n", &["cpu_pool is \"all\""]),
    (
        "memory_mib: 512\ncpu_pool: 0-99999999\n",
        &["cpu_pool is \"0-99999999\""],
    ),
    (
        "memory_mib: 512\ncpu_pool: [2, 3]\n",
        &["cpu_pool is a list", "2,3,6-9"],
    ),
    ("memory_mib: 512\ncpu_pool: 2.3\n", &["cpu_pool is 2.3"]),
    (
        "- memory_mib: 512\n  cpu_count: 2\n- memory_mib: 512\n",
        &["entry 2: cpu_count or cpu_pool is missing"],
    ),
    (
        "- memory_mib: 512\n  cpu_count: 2\n-\n",
        &["entry 2: found nothing"],
    ),
    ("- - memory_mib: 512\n", &["entry 1: found a list"]),
    ("memory_mib: 512\n cpu_count: 2\n", &["no YAML", "line"]),
    ("memory_mib: \"512\n", &["no YAML"]),
    ("\u{0}", &["no YAML"]),
    (
        "memory_mib: 512\nmemory_mib: 1024\ncpu_count: 2\n",
        &["a key comes twice", "memory_mib"],
    ),
    (
        "memory_mib: 512\ncpu_count: 2\n---\nmemory_mib: 512\n",
        &["several documents"],
    ),
    (
        "- &a {memory_mib: 512, cpu_count: 2}\n- *a\n",
        &["anchors (&)", "write the values out"],
    ),
    ("- *a\n", &["aliases (*)"]),
    ("<<: {memory_mib: 512}\ncpu_count: 2\n", &["merge keys (<<)"]),
    ("a: &a [1]\nb: &b [*a,*a]\nc: [*b,*b,*b]\n", &["aliases (*)"]),
    (
        "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
        &["nested too deeply", "--help"],
    ),
];

#[test]
fn every_mistake_is_told_with_its_key_and_what_to_write() {
    for (text, words) in WRONG {
        let problem = Configuration::parse(text.as_bytes()).expect_err(text).to_string();
        for word in *words {
            assert!(problem.contains(word), "{text:?}: {word:?} is not in {problem:?}");
        }
        assert!(!problem.contains('\n'), "{text:?}: {problem:?}");
    }
}

#[test]
fn deep_nesting_of_every_kind_is_refused_and_not_followed() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
        for depth in [9, 100, 10_000] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let problem = Configuration::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(problem, Problem::Yaml(_)), "{depth} {open:?}: {problem}");
        }
    }
}

#[test]
fn text_from_the_file_cannot_reach_the_terminal_as_it_is() {
    let problem = Configuration::parse(b"\"\\e[31mred\": 1\n")
        .unwrap_err()
        .to_string();
    assert!(!problem.contains('\u{1b}'), "{problem:?}");

    let long = format!("memory_mib: {}\ncpu_count: 2\n", "x".repeat(9999));
    let problem = Configuration::parse(long.as_bytes()).unwrap_err().to_string();
    assert!(problem.len() < 300, "{}", problem.len());

    for bytes in [&b"memory_mib: \xff\n"[..], b"\xff\xfe\xfd"] {
        let problem = Configuration::parse(bytes).unwrap_err();
        assert!(
            matches!(problem, Problem::Yaml(YamlError::Syntax(_))),
            "{problem}"
        );
    }
}

#[test]
fn a_file_is_read_up_to_its_limit_and_an_absent_one_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("allocator.yaml");
    assert_eq!(Configuration::read(&path).unwrap(), None);

    let text = "memory_mib: 512\ncpu_count: 2\n#".to_owned();
    let room = usize::try_from(MAX_BYTES).unwrap() - text.len();
    fs::write(&path, format!("{text}{}", "c".repeat(room))).unwrap();
    assert_eq!(
        Configuration::read(&path).unwrap(),
        Some(Configuration::default())
    );

    fs::write(&path, format!("{text}{}", "c".repeat(room + 1))).unwrap();
    let error = Configuration::read(&path).unwrap_err().to_string();
    let expected = format!("{}: it has more than 65536 bytes", path.display());
    assert!(error.starts_with(&expected), "{error}");

    let error = Configuration::read(directory.path()).unwrap_err();
    assert!(matches!(error, ConfigurationError::Read { .. }), "{error}");
}

#[test]
fn the_installation_directory_comes_before_the_path() {
    let path = |directory: Option<&str>| Configuration::default_path(directory.map(OsStr::new));

    assert_eq!(path(None), Path::new("/etc/nitro_enclaves/allocator.yaml"));
    assert_eq!(path(Some("")), path(None));
    assert_eq!(
        path(Some("/opt/ne/")),
        Path::new("/opt/ne/etc/nitro_enclaves/allocator.yaml")
    );
}

/// Pieces that come close to a configuration.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "memory_mib",
        "cpu_count",
        "cpu_pool",
        ":",
        ": ",
        "- ",
        "-",
        "\n",
        "\n  ",
        " ",
        "512",
        "0",
        "2,3,6-9",
        "---",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a",
        "*a",
        "<<",
        "!!str ",
        "!x ",
        "#",
        "|",
        ">",
        "?",
        "~",
        "null",
        "\t",
        "%",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Configuration::parse(&bytes);
    }

    #[test]
    fn what_resembles_a_configuration_is_parsed_or_refused_in_one_line(text in fragment()) {
        match Configuration::parse(text.as_bytes()) {
            Ok(configuration) => {
                prop_assert!(!configuration.requests.is_empty());
                for request in configuration.requests {
                    prop_assert!(request.memory_mib > 0);
                    prop_assert!(request.cpus != CpuRequest::Count(0) && request.cpus != pool(&[]));
                }
            }
            Err(problem) => {
                let text = problem.to_string();
                prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
            }
        }
    }

    #[test]
    fn every_configuration_survives_being_written_and_read(
        entries in prop::collection::vec((1..u64::MAX, 1..u32::MAX, prop::collection::btree_set(0..999_u32, 0..5)), 1..5),
    ) {
        let mut text = String::new();
        let mut expected = Vec::new();
        for (number, (memory_mib, count, cpus)) in entries.into_iter().enumerate() {
            let (line, cpus) = if cpus.is_empty() {
                (format!("cpu_count: {count}"), CpuRequest::Count(count))
            } else {
                let list: Vec<String> = cpus.iter().map(u32::to_string).collect();
                (format!("cpu_pool: {}", list.join(",")), CpuRequest::Pool(cpus))
            };
            writeln!(text, "- memory_mib: {memory_mib}\n  {line}").unwrap();
            expected.push(Request { place: Place::Entry(number + 1), memory_mib, cpus });
        }
        prop_assert_eq!(Configuration::parse(text.as_bytes()), Ok(Configuration { requests: expected }));
    }
}
