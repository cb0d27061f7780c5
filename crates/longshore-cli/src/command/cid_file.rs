//! `--cidfile`: a file with the container's id, made before the container is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use longshore::ContainerId;

use super::refused::Refused;

/// The file, still empty. It is removed if no id is written.
pub(crate) struct CidFile {
    path: PathBuf,
    file: Option<File>,
}

impl CidFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Refused> {
        let file = File::create_new(path).map_err(|error| refused(path, &error))?;
        Ok(Self { path: path.to_owned(), file: Some(file) })
    }

    pub(crate) fn write(mut self, id: &ContainerId) -> Result<(), Refused> {
        if let Some(file) = &mut self.file {
            file.write_all(id.as_str().as_bytes()).map_err(|error| refused(&self.path, &error))?;
        }
        self.file = None;
        Ok(())
    }
}

fn refused(path: &Path, error: &io::Error) -> Refused {
    Refused::CidFile { file: path.to_owned(), why: error.to_string() }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _gone = fs::remove_file(&self.path);
        }
    }
}
