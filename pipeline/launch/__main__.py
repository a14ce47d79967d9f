"""`python -m pipeline.launch MODULE ARGUMENTS…`"""

from pipeline.launch.launcher import main
from pipeline.stage import report_errors

with report_errors():
    main()
