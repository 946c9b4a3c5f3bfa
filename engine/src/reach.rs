//! How far a request over HTTP reaches into the file system.
//!
//! A process on the local socket runs scripts as its own user anyway. A request over HTTP may come from
//! further away, so the scripts that it names, and the settings files, which may name programs too, must
//! lie under configured directories. Its relative paths begin at a configured directory, because the
//! engine cannot know the client's.

use std::path::{Path, PathBuf};

use orchestrator_protocol::environment::RunOptions;
use orchestrator_protocol::request::Request;
use orchestrator_protocol::storage::{StartMigration, ValidateMigration};
use orchestrator_protocol::{Error, ErrorCode};

/// The directories that requests over HTTP have to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where relative paths begin. Absolute.
    pub working_dir: PathBuf,
    /// Scripts and settings files lie under one of these. Absolute.
    pub script_roots: Vec<PathBuf>,
}

impl Reach {
    /// Resolves the paths of a request, and refuses those that are out of reach.
    pub fn confine(&self, request: &mut Request) -> Result<(), Error> {
        match request {
            Request::Submit(submission) => {
                for (index, task) in submission.tasks.iter_mut().enumerate() {
                    let cwd = self.directory(task.cwd.as_deref());
                    task.script = self
                        .resolve("script", &cwd, &task.script)
                        .map_err(|error| error.with_field(format!("tasks[{index}].script")))?;
                    task.cwd = Some(text(cwd));
                }
            }
            Request::Provision(request) => {
                let cwd = self.directory(request.cwd.as_deref());
                request.settings = self
                    .resolve("settings file", &cwd, &request.settings)
                    .map_err(|error| error.with_field("settings"))?;
                request.cwd = Some(text(cwd));
            }
            Request::CreateEnvironment(request) => {
                request.cwd = Some(self.confine_run(&mut request.run, request.cwd.as_deref())?);
            }
            Request::RunEnvironment(request) => {
                request.cwd = Some(self.confine_run(&mut request.run, request.cwd.as_deref())?);
            }
            Request::ValidateMigration(ValidateMigration { to })
            | Request::StartMigration(StartMigration { to }) => {
                if let Some(dir) = &mut to.dir {
                    let cwd = self.directory(None);
                    // It will be made where it is missing, so nothing on the way to it may be missing.
                    if !cwd.join(&*dir).parent().is_some_and(Path::is_dir) {
                        let message = format!("the directory {dir} must lie in one that exists");
                        return Err(Error::invalid(message).with_field("dir"));
                    }
                    *dir = self.resolve("directory", &cwd, dir).map_err(|error| error.with_field("dir"))?;
                }
                if let Some(file) = &mut to.password_file {
                    let found = self.resolve("password file", &self.directory(None), file);
                    *file = found.map_err(|error| error.with_field("password_file"))?;
                }
            }
            Request::ListTopologies(request) => {
                request.cwd = Some(text(self.directory(request.cwd.as_deref())));
            }
            _ => {}
        }
        Ok(())
    }

    /// Resolves the scripts of a run. Returns the directory in which they, and taskservs, are looked for.
    fn confine_run(&self, run: &mut RunOptions, cwd: Option<&str>) -> Result<String, Error> {
        let cwd = self.directory(cwd);
        for (index, test) in run.tests.iter_mut().enumerate() {
            test.script = self
                .resolve("script", &cwd, &test.script)
                .map_err(|error| error.with_field(format!("run.tests[{index}].script")))?;
        }
        Ok(text(cwd))
    }

    fn directory(&self, asked: Option<&str>) -> PathBuf {
        asked.map_or_else(|| self.working_dir.clone(), |path| self.working_dir.join(path))
    }

    /// The path of a file within reach. One that does not exist passes where it would be within reach: it
    /// is refused where it is read. Whether one elsewhere exists is nothing that is told.
    fn resolve(&self, what: &str, cwd: &Path, path: &str) -> Result<String, Error> {
        let full = cwd.join(path);
        // Links are followed first: one that leads out of the roots is out of reach, and so is one that
        // leads nowhere, which may lead anywhere in a moment.
        let real = match full.canonicalize() {
            Ok(real) => Some(real),
            Err(_) if full.is_symlink() => None,
            Err(_) => match full.parent().map(Path::canonicalize) {
                Some(Ok(parent)) => full.file_name().map(|name| parent.join(name)),
                _ => return Ok(text(full)),
            },
        };
        if let Some(real) = real {
            let is_within = |root: &PathBuf| root.canonicalize().is_ok_and(|root| real.starts_with(root));
            if self.script_roots.iter().any(is_within) {
                return Ok(text(real));
            }
        }
        let roots: Vec<_> = self.script_roots.iter().map(|root| root.display().to_string()).collect();
        let allowed = match roots.as_slice() {
            [] => "no directory".to_owned(),
            roots => roots.join(" or "),
        };
        Err(Error::new(
            ErrorCode::Forbidden,
            format!("the {what} {} does not lie under {allowed}", full.display()),
        )
        .with_help("over HTTP only files in `script_roots` of the configuration's [http] table can be named"))
    }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use orchestrator_protocol::provision::ProvisionRequest;
    use orchestrator_protocol::submit::{NewTask, SubmitRequest};

    use super::*;

    fn confined(reach: &Reach, script: &str, cwd: Option<&str>) -> Result<NewTask, Error> {
        let task = NewTask { script: script.into(), cwd: cwd.map(Into::into), ..NewTask::default() };
        let mut request = Request::Submit(SubmitRequest { tasks: vec![task], ..SubmitRequest::default() });
        reach.confine(&mut request)?;
        let Request::Submit(SubmitRequest { mut tasks, .. }) = request else { unreachable!() };
        Ok(tasks.remove(0))
    }

    #[test]
    fn only_what_really_lies_under_a_root_is_within_reach() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().canonicalize().unwrap();
        for directory in ["site", "site-2", "site/deep"] {
            fs::create_dir(base.join(directory)).unwrap();
        }
        for file in ["site/in.nu", "site/deep/in.nu", "site-2/out.nu", "out.nu"] {
            fs::write(base.join(file), "").unwrap();
        }
        symlink(base.join("out.nu"), base.join("site/link.nu")).unwrap();
        symlink(base.join("site/in.nu"), base.join("site-2/link.nu")).unwrap();
        let site = base.join("site");
        let reach = Reach { working_dir: site.clone(), script_roots: vec![site.clone()] };

        let within = |script: &str, cwd| confined(&reach, script, cwd).map(|task| task.script);
        assert_eq!(within("in.nu", None).unwrap(), text(site.join("in.nu")));
        assert_eq!(within("./in.nu", Some("deep")).unwrap(), text(site.join("deep/in.nu")));
        assert_eq!(within("../site-2/link.nu", None).unwrap(), text(site.join("in.nu")));
        assert_eq!(within("none.nu", None).unwrap(), text(site.join("none.nu")));
        assert_eq!(within("none/none.nu", None).unwrap(), text(site.join("none/none.nu")));
        symlink(base.join("none.nu"), base.join("site/nowhere.nu")).unwrap();
        let out_of_reach = ["../out.nu", "link.nu", "../site-2/out.nu", "/bin/sh"];
        let not_there = ["../none.nu", "nowhere.nu", "/bin/none"];
        for script in out_of_reach.into_iter().chain(not_there) {
            let error = within(script, None).unwrap_err();
            assert_eq!(error.code, ErrorCode::Forbidden, "{script}");
            assert_eq!(error.field.as_deref(), Some("tasks[0].script"));
            assert!(error.message.contains(&text(site.clone())), "{}", error.message);
        }
        assert_eq!(confined(&reach, "in.nu", None).unwrap().cwd, Some(text(site)));
    }

    #[test]
    fn a_settings_file_is_confined_as_well() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().canonicalize().unwrap();
        fs::write(base.join("settings.yaml"), "").unwrap();
        let request = |settings: &str| {
            Request::Provision(ProvisionRequest { settings: settings.into(), ..Default::default() })
        };
        let reach = Reach { working_dir: base.clone(), script_roots: vec![base.clone()] };
        let mut good = request("./settings.yaml");
        reach.confine(&mut good).unwrap();
        let Request::Provision(good) = good else { unreachable!() };
        assert_eq!((good.settings, good.cwd), (text(base.join("settings.yaml")), Some(text(base))));
        let error = reach.confine(&mut request("/etc/passwd")).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::Forbidden, Some("settings")));
    }
}
