"""The graph of a project's pool. Its neighbours take seconds to find, and every training of a head asks for them: they
are kept beside the arrays of the score run.

    <artifact>/graph-<nodes>.npz   (m, m) similarities, as `scipy.sparse.save_npz` writes them; <nodes>: a hash of the
                                   rows of the items that are the nodes
"""

import hashlib

import numpy as np
from scipy import sparse

from service.store.project_settings import ProjectSettings
from service.store.tables import Project, ScoreRun
from worker.heads.pool_graph import PoolGraph
from worker.jobs.context import JobContext
from worker.jobs.specs import item_ids, modality_of
from worker.scoring.scored_items import ScoredItems, open_sketches

# Of the pool set aside, up to which it stays among the nodes, where nothing spreads through it: annotators reject an
# item now and then, and the graph is the same. With more a graph is made of the others, each time.
_MOST_ASIDE = 0.1


def pool_graph(context: JobContext, project: Project, score_run: ScoreRun, scored: ScoredItems) -> PoolGraph:
    """The graph of all scored items but the test split; nothing is learned from what was set aside."""
    with context.read() as session:
        test, aside = (scored.among(item_ids(session, project.id, which)) for which in ("test", "aside"))
    artifact = str(score_run.artifact)
    sketcher, appearance = modality_of(project).sketcher, None
    if sketcher is not None:
        appearance = sketcher.appearance(open_sketches(context.artifacts, artifact))
    kept = (aside & ~test).sum() <= _MOST_ASIDE * (~test).sum()
    rows = np.flatnonzero(~test if kept else ~test & ~aside)
    rng = np.random.default_rng(ProjectSettings.model_validate(project.settings).seed)
    graph = PoolGraph(scored.embeddings, rng, rows, appearance, aside=np.flatnonzero(aside))
    if not kept:
        return graph
    name = f"{artifact}/graph-{hashlib.sha256(graph.rows.tobytes()).hexdigest()[:12]}.npz"
    if context.artifacts.exists(name):
        graph.similarities = sparse.load_npz(context.artifacts.local_path(name))
    else:
        with context.artifacts.writing(name) as file:
            sparse.save_npz(file, graph.similarities, compressed=False)
    return graph
