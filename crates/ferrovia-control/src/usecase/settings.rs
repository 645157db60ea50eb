//! Settings of an instance: read, and changed on a version. The next deployment is made with them.

use ferrovia_core::permission::Action;
use ferrovia_core::settings::Settings;
use ferrovia_core::settings_rules::{SettingError, check};
use ferrovia_store::instance;

use super::context::OpContext;
use super::deploy::SettingsChange;
use super::error::Error;
use super::place::Place;
use super::project::check_version;
use super::{UseCases, code};

pub(super) fn refused(error: &SettingError, prefix: &str) -> Error {
    Error::new(&code::SETTING_INVALID, error.to_string()).field(format!("{prefix}{}", error.field))
}

impl UseCases {
    /// The settings of an instance and their version.
    ///
    /// # Errors
    /// When the instance is not there or the actor may not.
    pub async fn get_settings(&self, ctx: &OpContext, place: &Place) -> Result<(Settings, i64), Error> {
        let found = place
            .find(&mut *self.db.conn().await?, ctx, Action::ReadProject)
            .await?;
        Ok((found.instance.settings, found.instance.version))
    }

    /// Changes settings. `apply` changes what it is given; `versions` are those on which it may be.
    ///
    /// # Errors
    /// `setting_invalid` with the field, `changed_meanwhile`.
    pub async fn change_settings(
        &self,
        ctx: &OpContext,
        place: &Place,
        versions: Option<&[String]>,
        apply: SettingsChange,
    ) -> Result<(Settings, i64), Error> {
        let found = place
            .find(&mut *self.db.conn().await?, ctx, Action::Configure)
            .await?;
        let versions = versions.map(<[String]>::to_vec);
        let id = found.instance.id;
        self.change(ctx, "settings.change", found.label(), move |tx| {
            Box::pin(async move {
                let locked = instance::lock(tx, id).await?;
                check_version(versions.as_deref(), locked.version)?;
                let mut settings = locked.settings;
                apply(&mut settings);
                check(&settings).map_err(|error| refused(&error, ""))?;
                let version = instance::update_settings(tx, id, locked.version, &settings).await?;
                Ok((settings, version))
            })
        })
        .await
    }
}
