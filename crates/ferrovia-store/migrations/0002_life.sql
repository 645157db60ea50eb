-- What lives, and what clean-up and queues look things up by. Indexes are made in the migration's own transaction: the
-- tables are small when this runs, and what must write waits for seconds at most.

-- Deleting marks one row, also that of an environment, a service or a project: an instance has ended when any of these
-- has. Since when, in milliseconds since 1970; NULL while all of them live.
CREATE VIEW instance_life AS
    SELECT instance.id AS instance_id,
           LEAST(instance.deleted_ms, environment.deleted_ms, service.deleted_ms, project.deleted_ms) AS deleted_ms
    FROM instance
    JOIN environment ON environment.id = instance.environment_id
    JOIN service ON service.id = instance.service_id
    JOIN project ON project.id = service.project_id;

-- Who made or took over an image: clean-up asks for each image, and the foreign key asks when a row goes.
CREATE INDEX build_by_image ON build (repository, digest) WHERE repository IS NOT NULL;
-- Who needs a source tree.
CREATE INDEX build_by_tree ON build (project_id, tree_digest) WHERE tree_digest IS NOT NULL;
-- What has not ended is little, and is asked for all the time: a look at a build that waits counts those before it.
CREATE INDEX build_unfinished ON build (outcome, id) WHERE outcome IN ('queued', 'building');
CREATE INDEX deployment_unfinished ON deployment (instance_id) WHERE outcome IN ('queued', 'building', 'deploying');
