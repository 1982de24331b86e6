//! What can go wrong in the lab.

use std::io;

/// Everything the lab can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A scenario file that cannot be used, with the place in it.
    #[error("{file}:{line}:{column}: {message}")]
    Scenario {
        /// The file as it was named.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The process may not make network namespaces.
    #[error("the lab makes network namespaces and needs root; run it with sudo")]
    NotRoot,
    /// A program the lab needs is not installed.
    #[error("cannot run `{program}`: it comes with the package {package}")]
    Program {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
        /// Why it could not be run.
        source: io::Error,
    },
    /// A program was run and refused.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// An operation of the operating system failed.
    #[error("cannot {operation} {operand}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        operand: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program answered something the lab cannot read.
    #[error("cannot read the answer of {program}: {message}")]
    Answer {
        /// Who answered.
        program: String,
        /// What is wrong with it.
        message: String,
    },
    /// The truth cannot be trusted in this run.
    #[error("the truth is unusable: {0}")]
    Truth(String),
    /// There is no weir to test.
    #[error("there is no weir {0}; build it, or name one with --weir")]
    NoWeir(String),
    /// The weir under test did not do what every run needs of it.
    #[error("weir: {0}")]
    Weir(String),
    /// The lab's Kubernetes API cannot do what it was asked to.
    #[error("the lab's Kubernetes API: {0}")]
    Kubernetes(String),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Wraps an IO error with the operation and its operand.
pub(crate) fn io_error<'a>(
    operation: &'static str,
    operand: &'a str,
) -> impl FnOnce(io::Error) -> LabError + 'a {
    move |source| LabError::Io { operation, operand: operand.to_owned(), source }
}
