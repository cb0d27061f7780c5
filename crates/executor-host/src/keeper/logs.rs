//! Log files that a keeper writes.

use std::io;
use std::os::fd::AsFd;

use executor_disk::Dir;
use executor_programs::messages::Log;
use executor_programs::wire::{self, HEADER, MESSAGE_LIMIT, Reader, Writer};

use super::{Keeper, KeeperError, Result};

/// A log file. Both streams of a container can go to the same one.
#[derive(Clone, Copy, Debug)]
pub struct LogFile<'a> {
    /// The directory that it is in. The keeper keeps it open.
    pub dir: &'a Dir,
    /// Its name, of 1 to 48 bytes. Former files are `NAME.1`, the latest, `NAME.2`…
    pub name: &'a str,
    /// Its form.
    pub form: LogForm,
    /// The most bytes of it. A line that is longer is in a file of its own. Zero if there is no limit.
    pub limit: u64,
    /// How many former files are kept, at most 1000.
    pub rotations: u32,
}

/// The form of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// The bytes as they are.
    Raw,
    /// As docker's `json-file`: an object for each line, or for 16 KiB of it. Bytes that are not UTF-8 are replaced.
    Json,
    /// As Kubernetes has them: a time, the stream, `F` or `P` for a part, and the line or 16 KiB of it.
    Cri,
}

/// Which stream a pipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// stdout
    Stdout,
    /// stderr
    Stderr,
}

/// How much of a pipe is in its log file.
#[derive(Debug)]
pub struct Logged {
    /// How many bytes were taken out of the pipe.
    pub bytes: u64,
    /// Whether all was written, and nobody can write to the pipe any more.
    pub is_complete: bool,
    /// Why the last write has failed. It is tried again, and the program waits meanwhile.
    pub error: Option<io::Error>,
}

impl Keeper {
    /// Has the keeper write what it reads from a pipe that it holds to a file, from now on. Nobody else should read it.
    ///
    /// # Errors
    /// [`KeeperError::NoSuchName`]. [`KeeperError::NameTaken`] if the pipe has a file already, or the file is written in another form.
    /// `Refused` if it is no pipe, or a value is not allowed. The system's if the file cannot be opened; the keeper's.
    pub fn log(&self, pipe: &str, stream: LogStream, file: &LogFile<'_>) -> Result<()> {
        let log = Log {
            form: match file.form {
                LogForm::Raw => 0,
                LogForm::Json => 1,
                LogForm::Cri => 2,
            },
            stream: match stream {
                LogStream::Stdout => 1,
                LogStream::Stderr => 2,
            },
            limit: file.limit,
            rotations: file.rotations,
            pipe: pipe.as_bytes(),
            file: file.name.as_bytes(),
        };
        let mut body = vec![0; MESSAGE_LIMIT - HEADER];
        let mut writer = Writer::new(&mut body);
        log.write(&mut writer);
        let length = writer.len();
        body.truncate(length);
        self.call("write a log file", wire::LOG, &body, &[file.dir.as_fd()]).map(drop)
    }

    /// How much of a pipe is in its log file.
    ///
    /// # Errors
    /// [`KeeperError::NoSuchName`] if there is no such pipe, or no file for it; the keeper's.
    pub fn logged(&self, pipe: &str) -> Result<Logged> {
        let answer = self.call("look at a log", wire::LOGGED, pipe.as_bytes(), &[])?;
        let mut reader = Reader(&answer.body);
        let mut read = || Some((reader.u64()?, reader.u32()?, reader.u32()?));
        let (bytes, is_complete, errno) = read().ok_or(KeeperError::Answer)?;
        let error = (errno != 0).then(|| io::Error::from_raw_os_error(errno as i32));
        Ok(Logged { bytes, is_complete: is_complete != 0, error })
    }
}
