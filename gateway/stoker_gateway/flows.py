"""Flows of a user: store, check, publish as an app, run."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.errors import Conflict, DocumentChanged, InvalidRequest, NotFound
from stoker.core.ids import derived_id, new_id, short_id
from stoker.core.messages import FlowRef, Owner
from stoker.core.refs import parse_ref
from stoker.flows import records
from stoker.flows.compiler import AppFacts, AppWanted, apps_wanted, compile_graph
from stoker.flows.inputs import take_input
from stoker.flows.plan import Plan
from stoker.flows.records import FLOW, RUN, FlowBody, VersionEntry
from stoker.flows.run import Run
from stoker.flows.schema import parse_graph
from stoker.protocol import Store
from stoker.protocol.documents import DUE_LATER_S, Change, Document
from stoker.protocol.files import document_user
from stoker.runs.file_uses import note_uses
from stoker.runs.registry import Registry
from stoker.runs.submit import choose_function
from stoker_gateway.clock import now_ms
from stoker_gateway.registration import DEFAULT_NAMESPACE, taken

FUNCTION: Final = "run"
"""The one function of an app that is a flow."""
SCAN: Final = 1000
"""Flows of a user among which a name is looked for."""
_NOT_SLUG: Final = re.compile(r"[^A-Za-z0-9._-]+")
_sorted = msgspec.json.Encoder(order="sorted").encode


class Flow(Struct, frozen=True, kw_only=True):
    """A flow as read."""

    document: Document
    body: FlowBody

    @property
    def ref(self) -> str:
        return f"{self.body.namespace}/{slug(self.body.name)}"


class Flows:
    """The flows of all users of one gateway process."""

    def __init__(self, store: Store, registry: Registry, base_url: str) -> None:
        self._store = store
        self._registry = registry
        self._base_url = base_url

    async def create(self, name: str, namespace: str, owner: Owner, like: FlowBody | None = None) -> Flow:
        """A flow with an empty draft, or a copy of another one's draft.

        Raises:
            InvalidRequest: an app could not have its namespace.
        """
        namespace = namespace or DEFAULT_NAMESPACE
        parse_ref(f"{namespace}/{slug(name)}")
        body = FlowBody(namespace=namespace, name=name or "untitled", draft_version_id=new_id())
        if like is not None:
            copied = {
                key: getattr(like, key)
                for key in ("title", "description", "card_image", "thumbnail", "banner_image", "graph")
            }
            body = structs.replace(body, **copied)
        return await self.put(new_id(), owner.user_id, 0, body)

    async def put(
        self,
        flow_id: str,
        owner_id: str,
        revision: int,
        body: FlowBody,
        parts: Mapping[str, str] | None = None,
    ) -> Flow:
        """Store a flow; as it is read again.

        Raises:
            DocumentChanged: somebody else changed it meanwhile.
        """
        change = Change(body=records.dumps(body).encode(), parts=parts or {})
        await self._store.documents.put(FLOW, flow_id, owner_id, revision, change)
        return flow_of(await self._store.documents.get(FLOW, flow_id))

    async def find(self, ref: str, owner: Owner) -> Flow:
        """A flow of a user, by its id or by `namespace/name`.

        Raises:
            NotFound: there is none.
        """
        if "/" not in ref:
            [document] = await self._store.documents.get_many(FLOW, [ref])
            if document is not None and document.owner_id == owner.user_id:
                return flow_of(document)
        ids, _ = await self._store.documents.page(FLOW, owner.user_id, limit=SCAN)
        found = [flow_of(one) for one in await self._store.documents.get_many(FLOW, ids) if one is not None]
        named = [flow for flow in found if ref in {flow.ref, slug(flow.body.name)}]
        if len(named) == 1:
            return named[0]
        known = ", ".join(sorted(flow.ref for flow in found)[:5]) or "none"
        several = (
            f"{len(named)} flows are called so: {', '.join(flow.document.id for flow in named)}"
            if named
            else ""
        )
        raise NotFound(f"Flow not found: {ref!r}. {several or f'Known: {known}'} (stoker flows list)")

    async def check(self, flow: Flow, owner: Owner) -> Plan:
        """The plan of a flow's draft.

        Raises:
            InvalidRequest: it cannot run; says why, with the nodes.
        """
        graph = parse_graph(flow.body.graph)
        apps: dict[str, AppFacts | str] = {}
        for node_id, wanted in apps_wanted(graph).items():
            apps[node_id] = await self._facts(wanted, flow, owner)
        return compile_graph(graph, apps)

    async def _facts(self, wanted: AppWanted, flow: Flow, owner: Owner) -> AppFacts | str:
        try:
            if wanted.app_id:
                function = ""
                app, version = await self._registry.by_id(wanted.app_id, wanted.version_id, owner.user_id)
            else:
                ref, app, version = await self._registry.resolve(wanted.ref, owner.user_id)
                function = ref.function
            chosen = choose_function(app, version, wanted.function or function)
        except (InvalidRequest, NotFound) as error:
            return error.message.removeprefix("Input validation failed: ")
        if app.id == flow.body.app_id:
            return f"{app.namespace}/{app.name} is this very flow; a flow cannot contain itself"
        return AppFacts(
            app_id=app.id,
            ref=f"{app.namespace}/{app.name}",
            function=chosen.name,
            input_schema=chosen.input_schema,
            output_schema=chosen.output_schema,
        )

    async def publish(self, flow: Flow, owner: Owner) -> tuple[App, AppVersion]:
        """Make the draft a version, and that the current version of the flow's app.

        Raises:
            InvalidRequest: it cannot run.
            Conflict: its name is another app's.
        """
        plan = await self.check(flow, owner)
        body, flow_id = flow.body, flow.document.id
        graph, stored = _sorted(body.graph).decode(), records.dumps(plan)
        version_id = derived_id(flow_id, graph, stored)
        app = await self._app(flow, owner)
        if all(entry.id != version_id for entry in body.versions):
            entry = VersionEntry(id=version_id, created_ms=now_ms(), graph_version=body.history.version)
            body = structs.replace(body, versions=(*body.versions, entry))
        body = structs.replace(body, published_version_id=version_id, app_id=app.id)
        parts = {records.version_part(version_id): graph, records.plan_part(version_id): stored}
        await self.put(flow_id, owner.user_id, flow.document.revision, body, parts)
        version = app_version(app, plan, FlowRef(flow_id=flow_id, version_id=version_id), body)
        await self._store.catalog.put_version(version)
        app = structs.replace(app, current_version_id=version.id)
        await self._store.catalog.put_app(app)
        self._registry.forget()
        return app, version

    async def _app(self, flow: Flow, owner: Owner) -> App:
        """The flow's app with the flow's names; it is made when there is none."""
        body, now = flow.body, now_ms()
        name = slug(body.name)
        found = await self._store.catalog.find_app(body.namespace, name)
        if found is not None and found.owner_id != owner.user_id:
            raise taken(body.namespace, name)
        if found is not None and found.id != body.app_id:
            await self._refuse_other(found, flow)
        if found is None:
            app_id = new_id()
            found = App(
                id=app_id,
                short_id=short_id(app_id),
                namespace=body.namespace,
                name=name,
                owner_id=owner.user_id,
                visibility=body.visibility,
                category="flow",
                created_ms=now,
            )
            if await self._store.catalog.add_app(found) != app_id:
                raise taken(body.namespace, name)
        return structs.replace(found, title=body.title, description=body.description, updated_ms=now)

    async def _refuse_other(self, app: App, flow: Flow) -> None:
        """Refuse the name of an app that is not this flow's. One that lost its flow half-way is taken over."""
        versions = await self._store.catalog.versions(app.id)
        others = any(version.flow is None or version.flow.flow_id != flow.document.id for version in versions)
        if others or app.alias_of:
            what = f"stands for {app.alias_of}" if app.alias_of else "is another app of yours"
            raise Conflict(
                f"{app.namespace}/{app.name} {what}. Give the flow another name (POST /flows/"
                f"{flow.document.id}), or delete that app."
            )

    async def delete(self, flow: Flow) -> App | None:
        """Forget a flow and its app; the app, when there was one. Runs that began go on."""
        app = None
        if flow.body.app_id:
            try:
                app = await self._store.catalog.get_app(flow.body.app_id)
            except NotFound:
                app = None
        if app is not None and app.owner_id == flow.document.owner_id:
            await self._store.catalog.delete_app(app, now_ms())
            self._registry.forget()
        await self._store.documents.delete(FLOW, flow.document.id, flow.document.owner_id)
        return app

    async def start(
        self, ref: str, given: Any, owner: Owner, *, fail_on_error: bool | None, key: str = ""
    ) -> Document:
        """Run a flow: its published version, else its draft.

        Args:
            ref: its id, or `namespace/name`.
            given: the input.
            owner: who runs it.
            fail_on_error: instead of what the flow says.
            key: of the client; a repeat gives the first run again, as long as that is kept.

        Raises:
            NotFound: no such flow of the user.
            InvalidRequest: it cannot run, or not with this input.
            Conflict: the key came with another request.
        """
        asked = derived_id(ref, _sorted([given, fail_on_error]).decode()) if key else ""
        run_id = derived_id(RUN, owner.user_id, key, prefix=self._store.id_prefix) if key else ""
        if run_id and (first := await self._first_run(run_id, asked, key)) is not None:
            return first
        flow = await self._flow_to_run(ref, owner)
        version_id = flow.body.published_version_id
        part = records.plan_part(version_id)
        stored = (
            (await self._store.documents.parts(FLOW, flow.document.id, part)).get(part)
            if version_id
            else None
        )
        plan = records.loads(stored, Plan) if stored is not None else await self.check(flow, owner)
        plan, own = take_input(plan, given)
        version_id = version_id or flow.body.draft_version_id
        tag = derived_id(version_id, records.dumps(plan.input_schema))  # a draft changes, and its id does not
        self._registry.validate_flow_input(flow.document.id, tag, plan.input_schema, own)
        run = Run(
            flow_id=flow.document.id,
            flow_version_id=version_id,
            name=flow.ref,
            key_id=owner.key_id,
            fail_on_error=plan.fail_on_error if fail_on_error is None else fail_on_error,
            files_url=self._base_url,
            asked=asked,
        )
        try:
            return await self.begin(run, plan, own, owner.user_id, run_id)
        except DocumentChanged:  # the same request, at the same time
            first = await self._first_run(run_id, asked, key)
            if first is None:
                raise
            return first

    async def _first_run(self, run_id: str, asked: str, key: str) -> Document | None:
        """The run that a request with this key began.

        Raises:
            Conflict: it was another request.
        """
        [document] = await self._store.documents.get_many(RUN, [run_id])
        if document is not None and records.run_of(document.body).asked != asked:
            raise Conflict(
                f"Idempotency-Key {key!r} was used with another request. Use a new key for a new request; "
                "to repeat the first one, send its body unchanged."
            )
        return document

    async def begin(self, run: Run, plan: Plan, own: Any, owner_id: str, run_id: str = "") -> Document:
        """Store a new run, and have its first step taken.

        Raises:
            DocumentChanged: there is one with this id.
        """
        run_id = run_id or new_id(self._store.id_prefix)
        change = Change(
            body=records.dumps(run).encode(), parts=records.run_parts(plan, own), due_s=DUE_LATER_S, wake=True
        )
        await note_uses(self._store, list(change.parts.values()), document_user(RUN, run_id))
        await self._store.documents.put(RUN, run_id, owner_id, 0, change)
        return await self._store.documents.get(RUN, run_id)

    async def _flow_to_run(self, ref: str, owner: Owner) -> Flow:
        try:
            return await self.find(ref, owner)
        except NotFound:
            [document] = await self._store.documents.get_many(FLOW, [ref]) if "/" not in ref else [None]
            if document is None or not document_visible(document, owner.user_id):
                raise
            return flow_of(document)


def document_visible(document: Document, user_id: str) -> bool:
    """Whether a user may read and run a flow of somebody else."""
    return document.owner_id == user_id or flow_of(document).body.visibility in {"public", "unlisted"}


def flow_of(document: Document) -> Flow:
    """A flow from its document."""
    return Flow(document=document, body=records.loads(document.body, FlowBody))


def app_version(app: App, plan: Plan, flow: FlowRef, body: FlowBody) -> AppVersion:
    """A version of an app that is a flow."""
    function = AppFunction(
        name=FUNCTION,
        description=body.description,
        input_schema=plan.input_schema,
        output_schema=plan.output_schema,
    )
    return AppVersion(
        id=flow.version_id,
        short_id=short_id(flow.version_id),
        app_id=app.id,
        created_ms=now_ms(),
        kernel="flow",
        functions={FUNCTION: function},
        default_function=FUNCTION,
        flow=flow,
    )


def slug(name: str) -> str:
    """The name of a flow as an app can have it."""
    return _NOT_SLUG.sub("-", name).strip("-._").lower() or "flow"
