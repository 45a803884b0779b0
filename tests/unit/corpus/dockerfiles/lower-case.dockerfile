from alpine as Base
run echo hi
env A=b
from BASE as final
cmd ["x"]
