//! Who may do what: one table, for every interface.

use serde::{Deserialize, Serialize};

use crate::id::ProjectId;

/// What a credential is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum Scope {
    /// Everything of the team.
    Owner,
    /// Deploying and running one project: what continuous integration needs.
    Deploy {
        /// The project.
        project_id: ProjectId,
    },
}

/// What an actor wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// See a project, its services, deployments, settings and logs.
    ReadProject,
    /// Upload source, deploy, redeploy, restart, cancel; a new service comes with its first deployment.
    Deploy,
    /// Change settings, variables and the number of replicas; take a service down.
    Configure,
    /// Read the values of variables that are not sealed.
    ReadVariables,
    /// Keep the platform's hands off an instance, and allow them again.
    Hold,
    /// Create or delete environments, delete services, delete the project.
    ManageProject,
    /// Create projects.
    CreateProject,
    /// Create, list and revoke tokens.
    ManageTokens,
    /// See the installation's own state.
    ReadInstallation,
}

impl Action {
    /// Every action, for tests that must cover all of them.
    pub const ALL: [Self; 9] = [
        Self::ReadProject,
        Self::Deploy,
        Self::Configure,
        Self::ReadVariables,
        Self::Hold,
        Self::ManageProject,
        Self::CreateProject,
        Self::ManageTokens,
        Self::ReadInstallation,
    ];
}

impl Scope {
    /// Whether this scope allows an action, on a project if the action is on one.
    pub fn allows(self, action: Action, project: Option<ProjectId>) -> bool {
        match self {
            Self::Owner => true,
            Self::Deploy { project_id } => {
                let on_it = matches!(
                    action,
                    Action::ReadProject | Action::Deploy | Action::Configure | Action::ReadVariables
                );
                on_it && project == Some(project_id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_deploy_scope_ends_at_its_project() {
        let mine = ProjectId::from_uuid(Uuid::from_u128(1));
        let other = ProjectId::from_uuid(Uuid::from_u128(2));
        let scope = Scope::Deploy { project_id: mine };
        for action in Action::ALL {
            assert!(!scope.allows(action, Some(other)), "{action:?}");
            assert!(!scope.allows(action, None), "{action:?}");
            assert!(Scope::Owner.allows(action, Some(other)));
        }
        assert!(scope.allows(Action::Deploy, Some(mine)));
        assert!(!scope.allows(Action::ManageProject, Some(mine)));
        assert!(!scope.allows(Action::ManageTokens, Some(mine)));
    }
}
