//! Which engine a command talks to, and how it would be started.
//!
//! The first of these that says something wins: `--socket`, `--data-dir`, `$env.ORCHESTRATOR_SOCKET`,
//! `$env.config.plugins.orchestrator`, the data directory in the user's state directory. An engine is
//! started by itself only for a data directory: a socket that was named without one belongs to an engine
//! that somebody else looks after.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nu_plugin::{EngineInterface, EvaluatedCall};
use nu_protocol::{FromValue, LabeledError, Span, Value};
use orchestrator_protocol::socket::{default_data_dir, socket_path};

use super::storage_options::{shell_variable, take_out};
use crate::errors::{error, invalid};
use crate::input::absolute;

/// The variable that names the socket.
pub const SOCKET_VARIABLE: &str = "ORCHESTRATOR_SOCKET";
/// The variable that names the engine's program.
pub const ENGINE_VARIABLE: &str = "ORCHESTRATOR_ENGINE";

/// What the user has written into `$env.config.plugins.orchestrator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The socket of the engine.
    pub socket: Option<PathBuf>,
    /// Its data directory.
    pub data_dir: Option<PathBuf>,
    /// Its program.
    pub engine: Option<PathBuf>,
    /// Whether it is started when a command needs it.
    pub auto_start: bool,
    /// More arguments for it.
    pub args: Vec<OsString>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { socket: None, data_dir: None, engine: None, auto_start: true, args: Vec::new() }
    }
}

impl Settings {
    const KEYS: [&str; 5] = ["socket", "data_dir", "engine", "auto_start", "args"];

    /// Reads the record; an unknown key is an error, since it would be a mistyped one.
    pub fn read(value: Value, cwd: &Path) -> Result<Self, LabeledError> {
        let mut settings = Self::default();
        for (key, value) in value.into_record()? {
            let span = value.span();
            let path = |value| -> Result<Option<PathBuf>, LabeledError> {
                Ok(Some(absolute(cwd, &String::from_value(value)?)))
            };
            match key.as_str() {
                "socket" => settings.socket = path(value)?,
                "data_dir" => settings.data_dir = path(value)?,
                "engine" => settings.engine = path(value)?,
                "auto_start" => settings.auto_start = bool::from_value(value)?,
                "args" => settings.args = words(value)?,
                _ => {
                    return Err(invalid(
                        format!("$env.config.plugins.orchestrator has no setting '{key}'"),
                        "set here",
                        span,
                    )
                    .with_help(format!("the settings are {}", Self::KEYS.join(", "))));
                }
            }
        }
        Ok(settings)
    }
}

/// Words of a command line; numbers may stand for themselves.
fn words(value: Value) -> Result<Vec<OsString>, LabeledError> {
    value.into_list()?.into_iter().map(|word| Ok(word.coerce_into_string()?.into())).collect()
}

/// The engine of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its socket.
    pub socket: PathBuf,
    /// Its data directory, where it is known.
    pub data_dir: Option<PathBuf>,
    /// Its program, where one was chosen.
    pub engine: Option<PathBuf>,
    /// The flag that names it.
    pub span: Option<Span>,
    auto_start: bool,
    args: Vec<OsString>,
}

/// Where an engine is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    socket: PathBuf,
    data_dir: Option<PathBuf>,
}

/// Everything that can say where the engine is.
#[derive(Debug, Default)]
struct Hints {
    socket_flag: Option<PathBuf>,
    data_dir_flag: Option<PathBuf>,
    socket_variable: Option<PathBuf>,
    socket_setting: Option<PathBuf>,
    data_dir_setting: Option<PathBuf>,
    default_data_dir: Option<PathBuf>,
}

impl Hints {
    /// The place that the strongest of them names; `None` where none does.
    fn place(self) -> std::io::Result<Option<Place>> {
        let at = |data_dir: PathBuf| -> std::io::Result<Option<Place>> {
            Ok(Some(Place { socket: socket_path(&data_dir)?, data_dir: Some(data_dir) }))
        };
        match self {
            Self { socket_flag: Some(socket), data_dir_flag, .. } => {
                Ok(Some(Place { socket, data_dir: data_dir_flag }))
            }
            Self { data_dir_flag: Some(data_dir), .. } => at(data_dir),
            Self { socket_variable: Some(socket), .. } => Ok(Some(Place { socket, data_dir: None })),
            Self { socket_setting: Some(socket), data_dir_setting, .. } => {
                Ok(Some(Place { socket, data_dir: data_dir_setting }))
            }
            Self { data_dir_setting, default_data_dir, .. } => {
                data_dir_setting.or(default_data_dir).map_or(Ok(None), at)
            }
        }
    }
}

impl Target {
    /// The engine that a call is for.
    pub fn of_call(engine: &EngineInterface, call: &EvaluatedCall) -> Result<Self, LabeledError> {
        let flag = |name| call.get_flag::<String>(name);
        let span = |name| call.get_flag_value(name).map(|value| value.span());
        let found = Self::find(engine, call.head, flag("socket")?, flag("data-dir")?)?;
        Ok(Self { span: span("socket").or_else(|| span("data-dir")), ..found })
    }

    /// The engine that is talked to where the command line does not name one.
    pub fn of_environment(engine: &EngineInterface, head: Span) -> Result<Self, LabeledError> {
        Self::find(engine, head, None, None)
    }

    fn find(
        engine: &EngineInterface,
        head: Span,
        socket_flag: Option<String>,
        data_dir_flag: Option<String>,
    ) -> Result<Self, LabeledError> {
        let cwd = PathBuf::from(engine.get_current_dir()?);
        let variable = |name: &str| -> Result<Option<PathBuf>, LabeledError> {
            let value = shell_variable(engine, name)?;
            Ok(value.filter(|text| !text.is_empty()).map(|text| absolute(&cwd, &text)))
        };
        let settings = match engine.get_plugin_config()? {
            Some(value) => Settings::read(value, &cwd)?,
            None => Settings::default(),
        };
        let hints = Hints {
            socket_flag: socket_flag.map(|path| absolute(&cwd, &path)),
            data_dir_flag: data_dir_flag.map(|path| absolute(&cwd, &path)),
            socket_variable: variable(SOCKET_VARIABLE)?,
            socket_setting: settings.socket,
            data_dir_setting: settings.data_dir,
            default_data_dir: default_data_dir(),
        };
        let place = hints
            .place()
            .map_err(|cause| error("no_place", "The data directory cannot be used", cause.to_string(), head))?
            .ok_or_else(|| {
                error(
                    "no_place",
                    "Where the engine is cannot be told",
                    "neither HOME nor XDG_STATE_HOME is set",
                    head,
                )
                .with_help("name its data directory with --data-dir")
            })?;
        Ok(Self {
            socket: place.socket,
            data_dir: place.data_dir,
            engine: settings.engine.or(variable(ENGINE_VARIABLE)?),
            span: None,
            auto_start: settings.auto_start,
            args: settings.args,
        })
    }

    /// Whether an engine is started when a command needs it.
    pub fn may_start_by_itself(&self) -> bool {
        self.auto_start && self.data_dir.is_some()
    }

    /// The data directory of an engine that the user asks to start.
    pub fn data_dir_to_start(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(default_data_dir)
    }

    /// What to do when no engine runs and none is started.
    pub fn how_to_start(&self) -> String {
        match (&self.data_dir, self.auto_start) {
            (None, _) => {
                "an engine is started by itself only where its data directory is known: start the one that \
                          serves this socket, or name another with --data-dir"
                    .into()
            }
            (Some(_), false) => {
                "start it with `orchestrator start`: auto_start is off in $env.config.plugins.orchestrator"
                    .into()
            }
            (Some(_), true) => "start it with `orchestrator start`".into(),
        }
    }

    /// The arguments of an engine that this plugin starts: those of the settings, unless `more` says something
    /// else. Scripts are run by the user's own shell, unless the engine is told otherwise.
    pub fn engine_args(&self, more: Vec<OsString>) -> Vec<OsString> {
        let shell = own_shell().map(|shell| [OsString::from("--started-by"), shell.into()]);
        let (_, args) = take_out(&self.args, |option| is_among(option, &more));
        args.into_iter().chain(more).chain(shell.into_iter().flatten()).collect()
    }

    /// Those arguments in the settings that are meant, unless `words` say something else.
    pub fn args_that(&self, is_meant: impl Fn(&str) -> bool, words: &[OsString]) -> Vec<OsString> {
        take_out(&self.args, |option| is_meant(option) && !is_among(option, words)).0
    }

    /// A target for tests.
    #[cfg(test)]
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            data_dir: None,
            engine: None,
            span: None,
            auto_start: false,
            args: Vec::new(),
        }
    }
}

fn is_among(option: &str, words: &[OsString]) -> bool {
    words.iter().any(|word| word == option)
}

/// The Nushell that runs this plugin, where the system tells.
fn own_shell() -> Option<PathBuf> {
    let program = std::fs::read_link(format!("/proc/{}/exe", std::os::unix::process::parent_id())).ok()?;
    (program.file_name() == Some(OsStr::new("nu")) && program.is_file()).then_some(program)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use nu_protocol::record;

    use super::super::storage_options::{is_option, is_server_option};
    use super::*;

    fn path(text: &str) -> Option<PathBuf> {
        Some(text.into())
    }

    #[test]
    fn the_command_line_comes_first_then_the_variable_then_the_settings() {
        let hints = |socket, data, variable, socket_setting, data_setting| {
            let hints = Hints {
                socket_flag: socket,
                data_dir_flag: data,
                socket_variable: variable,
                socket_setting,
                data_dir_setting: data_setting,
                default_data_dir: path("/default"),
            };
            hints.place().unwrap().unwrap()
        };
        let of_data =
            |text: &str| Place { socket: socket_path(Path::new(text)).unwrap(), data_dir: path(text) };
        let of_socket = |text: &str, data_dir| Place { socket: text.into(), data_dir };
        let (s, d, v) = (path("/s"), path("/d"), path("/v"));
        let (ss, ds) = (path("/ss"), path("/ds"));
        assert_eq!(
            hints(s.clone(), d.clone(), v.clone(), ss.clone(), ds.clone()),
            of_socket("/s", d.clone())
        );
        assert_eq!(hints(None, d, v.clone(), ss.clone(), ds.clone()), of_data("/d"));
        assert_eq!(hints(None, None, v, ss.clone(), ds.clone()), of_socket("/v", None));
        assert_eq!(hints(None, None, None, ss, ds.clone()), of_socket("/ss", ds.clone()));
        assert_eq!(hints(None, None, None, None, ds), of_data("/ds"));
        assert_eq!(hints(None, None, None, None, None), of_data("/default"));
        assert_eq!(Hints::default().place().unwrap(), None);
    }

    #[test]
    fn an_engine_is_started_by_itself_only_for_a_data_directory() {
        let target = Target { auto_start: true, ..Target::at(Path::new("/s")) };
        assert!(!target.may_start_by_itself());
        let target = Target { data_dir: path("/d"), ..target };
        assert!(target.may_start_by_itself());
        assert!(!Target { auto_start: false, ..target }.may_start_by_itself());
    }

    #[test]
    fn what_is_said_comes_before_the_settings() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        let args = words("--max-parallel 2 --storage-dir /a --surrealdb-url=ws://a:1");
        let target = Target { args, ..Target::at(Path::new("/s")) };
        let said = words("--storage-dir /b");
        assert!(
            target
                .engine_args(said.clone())
                .starts_with(&words("--max-parallel 2 --surrealdb-url=ws://a:1 --storage-dir /b"))
        );
        assert_eq!(target.args_that(is_option, &said), words("--surrealdb-url=ws://a:1"));
        assert_eq!(
            target.args_that(is_option, &words("--surrealdb-url ws://b:1")),
            words("--storage-dir /a")
        );
        assert_eq!(target.args_that(is_server_option, &[]), words("--surrealdb-url=ws://a:1"));
    }

    #[test]
    fn settings_are_read_and_a_mistyped_one_is_pointed_at() {
        let cwd = Path::new("/work");
        let value = Value::test_record(record! {
            "data_dir" => Value::test_string("state"),
            "auto_start" => Value::test_bool(false),
            "args" => Value::test_list(vec![Value::test_string("--max-parallel"), Value::test_int(2)]),
        });
        let settings = Settings::read(value, cwd).unwrap();
        let expected = Settings {
            data_dir: path("/work/state"),
            auto_start: false,
            args: vec!["--max-parallel".into(), "2".into()],
            ..Settings::default()
        };
        assert_eq!(settings, expected);
        let span = Span::new(4, 9);
        let wrong = Value::test_record(record! { "autostart" => Value::bool(true, span) });
        let error = Settings::read(wrong, cwd).unwrap_err();
        assert_eq!(error.labels[0].span, span);
        assert!(error.help.unwrap().contains("auto_start"));
    }
}
