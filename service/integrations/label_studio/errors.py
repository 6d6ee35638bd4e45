"""Errors of working with a Label Studio."""

from service.errors import ShortlistError


class ToolUnreachable(ShortlistError):
    """Label Studio at {url} does not answer as it should: {reason}. See that it runs and that this machine reaches it;
    what is connected goes on by itself once it does."""

    # While it is being connected, too: from here a host that is mistyped looks like a tool that is down, and asking
    # again is right for one of them. An address that cannot be one is a 422, below.
    status, code = 503, "tool_unreachable"


class ToolAddressRefused(ShortlistError):
    """`{field}`: this is no address of a Label Studio: {reason}. Send the URL at which people open it."""

    status, code = 422, "tool_address_refused"


class ToolTokenRefused(ShortlistError):
    """`{field}`: Label Studio refuses this token: {reason}. Take a new one from Account & Settings there, a personal
    access token best; a legacy token works only where the organization allows them."""

    status, code = 422, "tool_token_refused"


class ToolTokenUnreadable(ShortlistError):
    """The stored token of Label Studio cannot be decrypted, as the secret of this service is another one now. Delete
    the connection and connect again."""

    status, code = 409, "tool_token_unreadable"


class ToolProjectMissing(ShortlistError):
    """`{field}`: Label Studio at {url} has no project {number} that this token may see. Its number stands in the
    address of the page, /projects/<number>/data."""

    status, code = 422, "tool_project_missing"


class LabelingConfigUnusable(ShortlistError):
    """`{field}`: the labeling configuration of this Label Studio project cannot be used: {reason}."""

    status, code = 422, "labeling_config_unusable"


class ToolClassesUnknown(ShortlistError):
    """`{field}`: the Label Studio project has classes that {project!r} lacks: {missing}. Send `add_classes: true`
    (`--add-classes`) to add them, or change either project so that they agree."""

    status, code = 422, "tool_classes_unknown"


class ConnectedAlready(ShortlistError):
    """`{field}`: {what} is connected already: {with_what}. A project works with one Label Studio project, and that with
    one project. Delete the other connection first (DELETE /projects/<id>/integrations/label-studio)."""

    status, code = 409, "connected_already"


class NotConnected(ShortlistError):
    """This project is not connected to a Label Studio. Connect it with `shortlist connect label-studio`, or with
    POST /projects/{project}/integrations/label-studio."""

    status, code = 404, "not_connected"


class SecretRefused(ShortlistError):
    """This call does not carry the secret of a connection: webhooks send it in the header {header}, the dialog "Connect
    model" as the password of Basic authentication. It was shown when the connection was made."""

    status, code = 401, "secret_refused"
