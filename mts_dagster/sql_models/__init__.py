"""The SQL models: reads the folder ``dbt_like_sql`` and gives typed models and SQL text.

What belongs here: loading and rendering of that folder, without Dagster and without a database. ``load_project``
is the door. Executing the text is the lake's work, turning models into assets that of ``defs``.
"""

from mts_dagster.sql_models.errors import SqlModelError
from mts_dagster.sql_models.model import DataTest, Dependency, Model, Source
from mts_dagster.sql_models.project import Project, load_project
from mts_dagster.sql_models.window import Window

__all__ = ["DataTest", "Dependency", "Model", "Project", "Source", "SqlModelError", "Window", "load_project"]
