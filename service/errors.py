"""Errors of the service, one class each: the docstring is the sentence people read, ``code`` is stable.

The sentence is a format string over the keyword arguments: ``raise UnknownClass(index=3, name="cot")``.
The service renders every error as RFC 9457 ``application/problem+json`` (one handler, in `service.main`).
"""

from typing import ClassVar


class ShortlistError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, **fields: object) -> None:
        self.fields = fields
        sentence = " ".join((type(self).__doc__ or "").split())
        super().__init__(sentence.format(**fields))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled by its fields, which `args` do not have; it is raised in one process and told in another."""
        return _made, (type(self), self.fields), self.__dict__


def _made(kind: type[ShortlistError], fields: dict[str, object]) -> ShortlistError:
    return kind(**fields)


class NotFound(ShortlistError):
    """There is no {what} {id!r} here."""

    status, code = 404, "not_found"


class BadItem(ShortlistError):
    """This item cannot be used: {reason}."""

    status, code = 422, "bad_item"

    @property
    def reason(self) -> str:
        return str(self.fields["reason"])


class SourceNotAllowed(ShortlistError):
    """{uri!r} does not lie below an allowed folder. Give an absolute path or URL below one of
    SHORTLIST_SOURCE_ROOTS ({roots}), or add its folder there and start again."""

    status, code = 422, "source_not_allowed"


class ArtifactNotStored(ShortlistError):
    """{name!r} could not be stored: {reason}. Make room where the artifacts are (SHORTLIST_ARTIFACTS_URL, or
    SHORTLIST_DATA_DIR); a job goes on from what it had stored, while it has attempts left."""

    status, code = 507, "artifact_not_stored"


class SourceUnreadable(ShortlistError):
    """{uri!r} cannot be read: {reason}."""

    status, code = 422, "source_unreadable"


class SourceUnreachable(SourceUnreadable):
    """{uri!r} cannot be read: {reason}. See that this machine reaches its place (mount, network, access)."""

    status, code = 503, "source_unreachable"


class ItemNotFetched(ShortlistError):
    """The item {key!r} could not be fetched, and others may not be either: {reason}. See that each worker reaches the
    source (mount, network, access, SHORTLIST_SOURCE_ROOTS), or withdraw the item, then score again; all items stay as
    they are, and the job is tried again by itself while it has attempts left."""

    status, code = 503, "item_not_fetched"


class ImportIncomplete(ShortlistError):
    """The item {key!r} could not be fetched, and others may not be either: {reason}. What could be read is imported.
    See that each worker reaches the source (mount, network, access), then import it again to add the rest; the job is
    tried again by itself while it has attempts left."""

    status, code = 503, "import_incomplete"


class NoItemColumn(ShortlistError):
    """{uri!r} has no column of {kind}s. Its columns are {columns}; name the one with the {kind}s `{known}`, and store
    the files' bytes in it, or a struct with `bytes`."""

    status, code = 422, "no_item_column"


class ColumnMissing(ShortlistError):
    """{uri!r} has no column of {kind}s. Its columns are {columns}; name the one with the {kind}s one of {known}, or add
    a column `path` with the places of files."""

    status, code = 422, "column_missing"


class UnknownModality(ShortlistError):
    """`{field}`: there are no {name!r} projects. A project's modality is one of: {known}; without one, its first source
    tells it."""

    status, code = 422, "unknown_modality"


class ModalityFixed(ShortlistError):
    """`{field}`: this project has items, and they are {kind}s. Make another project for items of another kind."""

    status, code = 409, "modality_fixed"


class TaskForAnotherModality(ShortlistError):
    """`{field}`: the pretext task {name!r} is not for {kind}s. Tasks that are: {fitting}. Choose one of these, or leave
    it out."""

    status, code = 422, "task_for_another_modality"


class NotMigrated(ShortlistError):
    """The database is at revision {current}, this program needs {newest}. Run `shortlist migrate` first."""

    status, code = 503, "not_migrated"


class DatabaseNewer(NotMigrated):
    """The database is at revision {current}, which a newer Shortlist made; this program knows up to {newest}. Update
    the program."""

    code = "database_newer"


class Invalid(ShortlistError):
    """`{field}`: {message}"""

    status, code = 422, "invalid"


class UnknownQueryParameter(ShortlistError):
    """`{field}` is not a query parameter of this address. {takes}."""

    status, code = 422, "unknown_query_parameter"


class UnknownClass(ShortlistError):
    """`{field}`: {name!r} is not a class of this project. Its classes are: {classes}. Send one of these, or add
    the new one to the project's `classes` first (PATCH /projects/{project})."""

    status, code = 422, "unknown_class"


class LabelKindDiffers(ShortlistError):
    """`{field}`: {wants}."""

    status, code = 422, "label_kind_differs"


class SingleOnly(ShortlistError):
    """An item of project {project} has any number of classes (its label_kind is multi), and this is for projects where
    an item has one: {what}. {instead}"""

    status, code = 409, "single_only"


class UnknownItem(ShortlistError):
    """`{field}`: there is no item {id!r} in this project. Use an `id` from next-batch or from the list of items."""

    status, code = 422, "unknown_item"


class UnknownItemKey(ShortlistError):
    """`{field}`: there is no item with the key {key!r} in this project. Keys are paths below the source's folder, or
    as registered; GET /projects/…/items lists them."""

    status, code = 422, "unknown_key"


class OtherBytes(ShortlistError):
    """`{field}`: {item!r} has other bytes here than those that the label was given for, and no other item, or more than
    one, has these. If the label holds all the same, send it without `content_hash`."""

    status, code = 422, "other_bytes"


class WebhookAddressRefused(ShortlistError):
    """`{field}`: this address cannot be told of events: {reason}. Send the https:// URL of a receiver, without user
    name, password and fragment."""

    status, code = 422, "webhook_address_refused"


class UnknownBatch(ShortlistError):
    """`{field}`: {id!r} is not a batch of this annotator with this item. Send the `batch` that next-batch answered,
    or leave it out."""

    status, code = 422, "unknown_batch"


class ItemInTestSplit(ShortlistError):
    """`{field}`: item {id!r} belongs to the test split, whose classes come with the import. Label items of the pool."""

    status, code = 422, "item_in_test_split"


class ItemNotServable(ShortlistError):
    """`{field}`: item {id!r} is {state}, so nobody can be asked to label it. Leave it out; what was withdrawn,
    quarantined or rejected as broken can be restored first."""

    status, code = 422, "item_not_servable"


class ItemNotReplaced(ShortlistError):
    """`{field}`: item {id!r} is not one whose key has other bytes now, so no other item can take its labels.
    `GET …/items?state=changed` lists those."""

    status, code = 422, "item_not_replaced"


class LabeledAlready(ShortlistError):
    """`{field}`: {annotator!r} has labeled item {id!r} already, and nobody gets an item twice. Queue it for somebody
    else, or leave the annotator out."""

    status, code = 422, "labeled_already"


class RevisionTaken(ShortlistError):
    """`{field}`: revision {revision} of this item's label is stored already with other content. Send the next
    revision ({next}), or leave `revision` out."""

    status, code = 422, "revision_taken"


class AnnotatorMissing(ShortlistError):
    """`{field}` is missing: say who labels. A key bound to an annotator may leave it out."""

    status, code = 422, "annotator_missing"


class UnknownPlugIn(ShortlistError):
    """`{field}`: no running worker knows the {kind} {name!r}. Known are: {known}."""

    status, code = 422, "unknown_plug_in"


class KeyMissing(ShortlistError):
    """This needs a key: send the header `Authorization: Bearer <key>`. An admin makes keys with POST /keys or
    `shortlist keys add`."""

    status, code = 401, "key_missing"


class KeyRefused(ShortlistError):
    """This key is unknown or was revoked. Ask an admin for a new one."""

    status, code = 401, "key_refused"


class SignInEnded(ShortlistError):
    """This browser is not signed in, or no longer. Sign in with a key once more."""

    status, code = 401, "sign_in_ended"


class NotFromThePage(ShortlistError):
    """A sign-in by cookie changes things only with the header `X-Shortlist: page`, which other sites cannot send.
    Programs send a key: `Authorization: Bearer <key>`."""

    status, code = 403, "not_from_the_page"


class LinkRefused(ShortlistError):
    """This image link is not valid, or no longer. Ask for the item or the batch again to get a new one."""

    status, code = 401, "link_refused"


class RoleRefused(ShortlistError):
    """A key with the role {role!r} may not do this; it takes the role {needed}."""

    status, code = 403, "role_refused"


class BoundToProject(ShortlistError):
    """This key is bound to one project and may not do this. Use a key that is not."""

    status, code = 403, "bound_to_project"


class BoundToAnnotator(ShortlistError):
    """`{field}`: this key is bound to the annotator {bound!r} and may not act for {name!r}."""

    status, code = 403, "bound_to_annotator"


class NameTaken(ShortlistError):
    """There is a project named {name!r} already. Choose another name."""

    status, code = 409, "name_taken"


class ProjectArchived(ShortlistError):
    """This project is archived and changes no more. Set its `state` to `active` first (PATCH /projects/{project})."""

    status, code = 409, "project_archived"


class PretextInUse(ShortlistError):
    """Project {other!r} is served with the pretext model of this one. Delete {other_id} first, or set this project's
    `state` to `archived`."""

    status, code = 409, "pretext_in_use"


class ClassInUse(ShortlistError):
    """The class {name!r} cannot be removed, as these have it: {use}. Merge it into another class
    (POST …/classes/changes), or keep it among `classes`; adding classes is fine."""

    status, code = 409, "class_in_use"


class NothingUploaded(ShortlistError):
    """Nothing was uploaded to {upload!r}. Send files first: PUT …/uploads/{upload}?path=NAME."""

    status, code = 409, "nothing_uploaded"


class UploadInUse(ShortlistError):
    """The upload {upload!r} was imported, and its files are items. They go when the project is deleted."""

    status, code = 409, "upload_in_use"


class ClassesBusy(ShortlistError):
    """The classes cannot change while the job {job} ({kind}) reads them. Try again when it has ended, or cancel it."""

    status, code = 409, "classes_busy"


class EmptyPool(ShortlistError):
    """The pool of this project is empty. Import a source (POST /projects/{project}/sources), wait for its job, then
    try again."""

    status, code = 409, "empty_pool"


class NoPretextModel(ShortlistError):
    """Project {other!r}, whose pretext model this one takes (`pretext_from`), has none that is ready. Let it finish
    its pretraining (POST /projects/{other}/pretrain) first."""

    status, code = 409, "no_pretext_model"


class NoScoreRun(ShortlistError):
    """The pool has not been scored yet. Start with POST /projects/{project}/pretrain and wait for its jobs."""

    status, code = 409, "no_score_run"


class NoPredictions(ShortlistError):
    """The project has no predictions of your own. Send some with POST /projects/{project}/predictions."""

    status, code = 404, "no_predictions"


class PredictionsOlder(ShortlistError):
    """`labels`: your model has learned from {labels:,} labels, and the head at hand from {by_head:,}. Train yours on
    all of them first, or say `?older=true`."""

    status, code = 409, "predictions_older"


class ItemNotScored(ShortlistError):
    """Item {id!r} is not scored yet, so nothing can be compared with it. Items that came last are scored with
    the next score run, and before there is a pretext model only some of a large pool are: see the project's jobs, then
    ask again, or take another example."""

    status, code = 409, "item_not_scored"


class SimilarityIndexMissing(ShortlistError):
    """Items cannot be compared yet: the similarity index of the newest score run is being made. Wait for the project's
    jobs `rank` and `index_items`, then ask again."""

    status, code = 409, "similarity_index_missing"


class MapMissing(ShortlistError):
    """The map of the newest score run is not drawn yet. Ask for it with POST /projects/{project}/map, and for the map
    again once its job `map_items` is done."""

    status, code = 409, "map_missing"


class AnswersMissing(ShortlistError):
    """Round {number} was not measured, or before the answers of its head were kept. Take a measured round that is
    newer."""

    status, code = 409, "answers_missing"


class NoHints(ShortlistError):
    """Item {id!r} is a control item: what accuracy is measured on is labeled without hints. Ask for those of an item
    that the ranking chose."""

    status, code = 409, "no_hints"


class NoLabels(ShortlistError):
    """There are no labels to train on yet. Take items with next-batch and send their labels first."""

    status, code = 409, "no_labels"


class BackboneNotExported(ShortlistError):
    """This backbone has not been exported yet. POST /projects/{project}/pretext-models/{version}/export, wait for its
    job, then ask again."""

    status, code = 404, "backbone_not_exported"


class NoSuspects(ShortlistError):
    """No label is in doubt, or none that somebody else gave. Labels are checked after each round;
    POST /projects/{project}/suspects/check checks now."""

    status, code = 409, "no_suspects"


class NoProject(ShortlistError):
    """There is no project yet, or all are archived. Create one with POST /projects, or with
    `shortlist up --items PATH --classes cat,dog`."""

    status, code = 404, "no_project"


class WhichProject(ShortlistError):
    """There are several projects, so this address is not enough: use /projects/<id>/{action}, or a key that is
    bound to one project."""

    status, code = 409, "which_project"


class LabelsUnknown(ShortlistError):
    """Send the labels as NDJSON, as a JSON array, as CSV or as Parquet, and say which by `Content-Type`: {expected}."""

    status, code = 415, "labels_unknown"


class UnknownFormat(ShortlistError):
    """`{field}`: there is no format {name!r}. Choose one of: {known}."""

    status, code = 422, "unknown_format"


class LabelFileUnknown(ShortlistError):
    """{path!r} cannot be imported: the name of a file with labels ends in {endings}."""

    code = "label_file_unknown"


class WhichExport(ShortlistError):
    """There are several projects. Say which, by name or id: `{command}`."""

    status, code = 409, "which_export"


class TooManyWebhooks(ShortlistError):
    """This project has {most} webhooks already. Delete one (DELETE /projects/…/webhooks/<id>) first."""

    status, code = 409, "too_many_webhooks"


class LastAdminKey(ShortlistError):
    """This is the last admin key that is good for all projects. Make another one first."""

    status, code = 409, "last_admin_key"


class JobEnded(ShortlistError):
    """This job has {state} already; there is nothing to cancel."""

    status, code = 409, "job_ended"


class ReservationExpired(ShortlistError):
    """The reservation of batch {batch!r} has run out, or nothing of it is left. Ask next-batch for a new one; labels
    you have are still accepted."""

    status, code = 409, "reservation_expired"


class ProjectChanged(ShortlistError):
    """The project was changed by someone else since you read it. Read it again, then send the change with its new
    ETag as If-Match."""

    status, code = 412, "project_changed"


class BodyTooLarge(ShortlistError):
    """The request body is larger than {limit} bytes (SHORTLIST_MAX_BODY_BYTES). Send it in parts; items may be
    streamed as application/x-ndjson."""

    status, code = 413, "body_too_large"


class NotJson(ShortlistError):
    """Send the body as JSON, with the header `Content-Type: {expected}`."""

    status, code = 415, "not_json"


class IdempotencyKeyReused(ShortlistError):
    """`{field}` was sent before with another request. Take a new one for each request; repeat it only to repeat that
    very request."""

    status, code = 422, "idempotency_key_reused"


class IdempotencyKeyInUse(ShortlistError):
    """The same request, with this Idempotency-Key, is being done at this moment. Send it again in a second to get its
    answer."""

    status, code = 409, "idempotency_key_in_use"


class AnswerNotKept(ShortlistError):
    """This was done before, with this Idempotency-Key, but the answer shows a secret and was not kept. If you have lost
    it, delete that key or webhook and make another one with a new Idempotency-Key."""

    status, code = 409, "answer_not_kept"


class TooManyRequests(ShortlistError):
    """This key sends more than {per_s:g} requests a second (SHORTLIST_RATE_LIMIT_PER_S). Wait {retry_after_s} s, and
    take and send more items at a time."""

    status, code = 429, "too_many_requests"


class TooManyListeners(ShortlistError):
    """This key listens to {most} event streams already (SHORTLIST_EVENT_STREAMS_PER_KEY). Close one of them, or poll:
    every GET carries an ETag."""

    status, code = 429, "too_many_listeners"


class NotAcceptable(ShortlistError):
    """None of the formats in `Accept: {accept}` can be served. Choose one of: {known}."""

    status, code = 406, "not_acceptable"


class NoPreview(ShortlistError):
    """Item {id!r} cannot be shown: {reason}"""

    status, code = 404, "no_preview"


class NotReady(ShortlistError):
    """Not ready, by the check of the {what}: {reason}"""

    status, code = 503, "not_ready"


class GoneMeanwhile(ShortlistError):
    """Something that this request refers to was changed or deleted at the same moment. Look again, and send it
    once more."""

    status, code = 409, "gone_meanwhile"


class DatabaseBusy(ShortlistError):
    """The database cannot answer just now. Nothing was stored; try again in a moment."""

    status, code = 503, "database_busy"


class DataFolderNotWritable(ShortlistError):
    """The data folder {path!r} cannot be written: {reason}. Choose another one with --data-dir or
    SHORTLIST_DATA_DIR, or change its permissions."""

    code = "data_folder_not_writable"


class BadSettings(ShortlistError):
    """Settings cannot be used. {problems}. `shortlist settings` explains each."""

    code = "bad_settings"


class PortInUse(ShortlistError):
    """Port {port} of {host} is in use. Choose another one with --port or SHORTLIST_PORT."""

    code = "port_in_use"


class CannotListen(ShortlistError):
    """Cannot listen on {host} port {port}: {reason}. Choose others with SHORTLIST_HOST and --port."""

    code = "cannot_listen"


class NoKeys(ShortlistError):
    """There are no API keys, so the service binds to nothing but loopback, and {host} is not. Set
    SHORTLIST_ADMIN_KEY, or run `shortlist keys add` first."""

    code = "no_keys"


class WeakAdminKey(ShortlistError):
    """SHORTLIST_ADMIN_KEY is too short. Take at least 16 characters, best random ones."""

    code = "weak_admin_key"


class DatabaseUnreachable(ShortlistError):
    """The database cannot be used: {reason}. Look at SHORTLIST_DATABASE_URL and SHORTLIST_DATA_DIR."""

    status, code = 503, "database_unreachable"


class ItemsMissing(ShortlistError):
    """{path!r} {fault}. Name the folder, archive, CSV, TSV, JSONL or Parquet file, or the URL of a bucket, with your
    items after --items."""

    code = "items_missing"


class AlreadyRunning(ShortlistError):
    """`shortlist up` is already running in the data folder {path!r}. Use that one, stop it first, or choose another
    folder with --data-dir."""

    code = "already_running"


class ClassesFileUnreadable(ShortlistError):
    """The classes in {path!r} cannot be read: {reason}. It is a text file in UTF-8 with one class a line."""

    code = "classes_file_unreadable"


class NoClassFolders(ShortlistError):
    """The items in {place!r} do not lie in folders that could be classes (there are: {found}). It takes two at least;
    give the classes, --classes cat,dog"""

    code = "no_class_folders"


class ClassesMissing(ShortlistError):
    """The project {name!r} is new, so it needs its classes: --classes cat,dog or --classes-file FILE"""

    code = "classes_missing"


class NameOfAnotherFolder(ShortlistError):
    """The project {name!r} is that of {other!r}. To label {place!r} on its own, give its classes, --classes cat,dog, or
    another name, --project NAME; to add it to that project: --project {quoted}"""

    code = "name_of_another_folder"


class FolderGone(ShortlistError):
    """The project {name!r} with the same classes was made of {other!r}, which is not there any more. If {place!r} is
    that folder under a new name, go on with its project: --project {quoted}. Else give the new project a name:
    --project NAME"""

    code = "folder_gone"


class ClassesDiffer(ShortlistError):
    """The project {name!r} exists with the classes {classes}. Leave --classes out to go on with them; to add
    classes, use PATCH /projects/{id}."""

    code = "classes_differ"
