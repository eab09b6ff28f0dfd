"""Methods ranked over several data sets: mean ranks and significant differences."""

from batchensemble.comparison.ranking.folders import Ranking, rank_folders
from batchensemble.comparison.ranking.scored import RANKED_BY
from batchensemble.comparison.ranking.sentence import groups, p_text, score_name, sentence

__all__ = ["RANKED_BY", "Ranking", "groups", "p_text", "rank_folders", "score_name", "sentence"]
