"""Write the estimate to standard output."""

from pipeline.cost.document import write_document
from pipeline.cost.stages import count_models, count_papers_unets

print(write_document(count_models(), count_papers_unets()), end="")
