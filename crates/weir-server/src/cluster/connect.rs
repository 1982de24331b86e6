//! The way to the API.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection that says nothing for this long is given up; watches are resumed well before.
const SILENCE: Duration = Duration::from_secs(75);
/// A connection must stand after this time.
const CONNECT: Duration = Duration::from_secs(10);

/// How the API is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the pod's service account.
    InCluster,
    /// By a kubeconfig file's current context.
    Kubeconfig(PathBuf),
}

/// Why the API cannot even be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The kubeconfig is not usable.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: kube::config::KubeconfigError,
    },
    /// This is no pod, or one without a service account.
    #[error(
        "cannot reach the Kubernetes API as a pod does: name a --kubeconfig, or say --no-kubernetes"
    )]
    InCluster {
        /// Why not.
        source: kube::config::InClusterError,
    },
    /// The client cannot be made of it.
    #[error("cannot make a client of the Kubernetes API")]
    Client {
        /// Why not.
        source: kube::Error,
    },
    /// What was known before cannot be read.
    #[error("cannot read what is known of the cluster")]
    Memory {
        /// Why not.
        #[from]
        source: weir_store::StoreError,
    },
    /// There is no thread to watch from.
    #[error("cannot start watching the Kubernetes API")]
    Start {
        /// Why not.
        source: io::Error,
    },
}

impl Access {
    /// A client; it connects with its first request.
    pub(super) async fn client(&self) -> Result<Client, ClusterError> {
        let mut config = match self {
            Self::InCluster => {
                Config::incluster().map_err(|source| ClusterError::InCluster { source })?
            }
            Self::Kubeconfig(path) => {
                let failed = |source| ClusterError::Kubeconfig { path: path.clone(), source };
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
            }
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        Client::try_from(config).map_err(|source| ClusterError::Client { source })
    }
}
