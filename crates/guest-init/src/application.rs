//! What to run: the files that the image builder puts beside `/rootfs`.
//!
//! | file       | content                                                   | when absent              |
//! |------------|-----------------------------------------------------------|--------------------------|
//! | `/cmd`     | the command line, one argument per line                   | `sh`                     |
//! | `/env`     | the environment, one `NAME=value` per line                | `PATH` of [`SYSTEM_PATH`] |
//! | `/workdir` | the working directory, one line (not an AWS file)         | `/`                      |
//! | `/user`    | `user[:group]`, names or numbers, one line (not an AWS file) | root                  |
//!
//! They are deleted once read: the application does not see them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::lookup::SYSTEM_PATH;

/// The program to run and the circumstances it runs in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Application {
    /// The program as the image names it.
    pub(crate) program: OsString,
    /// Its arguments, without the program's name.
    pub(crate) arguments: Vec<OsString>,
    /// Its whole environment, in the order of the file.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where it starts, a path in the image's file system.
    pub(crate) directory: PathBuf,
    /// `user[:group]` of the image; root when there is none.
    pub(crate) user: Option<OsString>,
}

impl Application {
    /// Reads the files from `directory` and deletes them.
    pub(crate) fn take_from(directory: &Path) -> Result<Self, Error> {
        let cmd = take(&directory.join("cmd"))?;
        let env = take(&directory.join("env"))?;
        let workdir = take(&directory.join("workdir"))?;
        let user = take(&directory.join("user"))?;

        let mut words = lines(cmd.as_deref().unwrap_or_default()).map(os_string);
        let program = words.next().unwrap_or_else(|| "sh".into());
        Ok(Self {
            program,
            arguments: words.collect(),
            environment: env.map_or_else(default_environment, |env| environment(&env)),
            directory: workdir
                .as_deref()
                .and_then(first_line)
                .map_or_else(|| "/".into(), PathBuf::from),
            user: user.as_deref().and_then(first_line),
        })
    }

    /// The value of a variable of the application's environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_os_str())
    }
}

/// Reads a file and deletes it; `None` when there is no such file.
fn take(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::at("read", path)(error)),
    };
    fs::remove_file(path).map_err(Error::at("delete", path))?;
    Ok(Some(content))
}

/// The lines of a file. A newline ends a line, so an empty line is an empty argument, and a last line may lack its end.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

fn first_line(content: &[u8]) -> Option<OsString> {
    lines(content)
        .next()
        .filter(|line| !line.is_empty())
        .map(os_string)
}

fn os_string(line: &[u8]) -> OsString {
    OsString::from_vec(line.to_vec())
}

fn default_environment() -> Vec<(OsString, OsString)> {
    vec![("PATH".into(), SYSTEM_PATH.into())]
}

/// Parses `NAME=value` lines. A line that is none cannot be a variable and is left out.
fn environment(content: &[u8]) -> Vec<(OsString, OsString)> {
    lines(content)
        .filter_map(|line| {
            let equals = line.iter().position(|&byte| byte == b'=')?;
            let (name, value) = (line.get(..equals)?, line.get(equals + 1..)?);
            (!name.is_empty()).then(|| (os_string(name), os_string(value)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_files(files: &[(&str, &str)]) -> Application {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let application = Application::take_from(directory.path()).unwrap();
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            0,
            "every file is deleted once read"
        );
        application
    }

    #[test]
    fn files_of_an_aws_image() {
        let application = with_files(&[
            ("cmd", "/bin/hello\n--name\nworld wide\n"),
            ("env", "PATH=/usr/local/bin\nA=b=c\n"),
        ]);
        assert_eq!(
            application,
            Application {
                program: "/bin/hello".into(),
                arguments: vec!["--name".into(), "world wide".into()],
                environment: vec![
                    ("PATH".into(), "/usr/local/bin".into()),
                    ("A".into(), "b=c".into()),
                ],
                directory: "/".into(),
                user: None,
            }
        );
        assert_eq!(application.variable("A"), Some(OsStr::new("b=c")));
        assert_eq!(application.variable("B"), None);
    }

    #[test]
    fn directory_and_user_of_an_image_that_sets_them() {
        let application = with_files(&[
            ("cmd", "sh"),
            ("workdir", "/srv/app\n"),
            ("user", "www-data:33\n"),
        ]);
        assert_eq!(application.directory, Path::new("/srv/app"));
        assert_eq!(application.user, Some("www-data:33".into()));
    }

    #[test]
    fn no_files_means_a_shell_as_root() {
        let application = with_files(&[]);
        assert_eq!(application.program, "sh");
        assert_eq!(application.arguments, Vec::<OsString>::new());
        assert_eq!(
            application.variable("PATH"),
            Some(OsStr::new("/sbin:/usr/sbin:/bin:/usr/bin"))
        );
        assert_eq!(application.directory, Path::new("/"));
        assert_eq!(application.user, None);
    }

    #[test]
    fn an_empty_line_is_an_empty_argument_and_the_last_newline_is_optional() {
        let application = with_files(&[("cmd", "printf\n\n%s")]);
        assert_eq!(application.arguments, ["", "%s"]);
    }

    #[test]
    fn lines_that_are_no_variable_are_left_out() {
        let application = with_files(&[("env", "NOVALUE\n=nameless\n\nEMPTY=\n")]);
        assert_eq!(application.environment, [("EMPTY".into(), "".into())]);
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("env")).unwrap();
        let error = Application::take_from(directory.path()).unwrap_err();
        assert!(error.to_string().ends_with("/env"), "{error}");
    }

    proptest! {
        #[test]
        fn arguments_survive_the_way_through_the_file(arguments in prop::collection::vec("[^\n]{0,12}", 1..6)) {
            let file = arguments.join("\n") + "\n";
            let application = with_files(&[("cmd", &file)]);
            let mut read = vec![application.program];
            read.extend(application.arguments);
            prop_assert_eq!(read, arguments.into_iter().map(OsString::from).collect::<Vec<_>>());
        }
    }
}
