"""A hundred command lines that no command can do anything sensible with: each is refused at once."""

from world import EVALUATE, SCORE, TRAIN

FORECAST = "ladcast forecast --model world/tiny --device cpu --no-draw --output o.zarr"
EXPORT = "ladcast export world/fc.zarr"
STATISTICS = "ladcast-data statistics world/states.zarr o.json --grid 64x33-south"
TRY = f"{TRAIN.format(which='autoencoder')} --dry-run --set"
BAD_OPTIONS = [
    *(f"{FORECAST} --members {n}" for n in ("0", "-1", "1000000", "1e9", "nan", "2.5")),
    *(f"{FORECAST} --days {n}" for n in ("0", "-3", "200000", "1e21", "nan", "inf", "0.1")),
    *(f"{FORECAST} --steps {n}" for n in ("0", "1", "-2", "100000000")),
    *(f"{FORECAST} --batch-size {n}" for n in ("-1", "-1000000000")),
    *(f"{FORECAST} --seed {n}" for n in ("-1", "x", "1e40")),
    *(f"{FORECAST} --lead-step {n}" for n in ("0", "5", "-6")),
    *(f"{FORECAST} --noise-scale {n}" for n in ("-1", "nan", "inf")),
    *(f"{FORECAST} --perturbation {n}" for n in ("-1", "nan", "inf")),
    *(f"{FORECAST} --redraws {n}" for n in ("-1", "x")),
    *(f"{FORECAST} {n}" for n in ("2001-13-01", "yesterday", "2001-01-01T99", "9999-01-01T00", "1700-01-01T00")),
    *(f"{FORECAST} --model {n}" for n in ("none", "world/states.zarr", "world/run", "/dev/null")),
    *(f"{FORECAST} --source {n}" for n in ("none.nc", "world", "world/tiny", "/dev/null", "world/fc.zarr")),
    *(f"{FORECAST} --place {n}" for n in ("Nowhere", "Oslo,x,y", "Oslo,95,10", "Oslo,nan,nan")),
    f"{FORECAST} --device gpu7",
    f"{FORECAST} --precision float64",
    "ladcast forecast --model world/tiny --device cpu --no-draw --days 1 --output /proc/o.zarr",
    "ladcast forecast --model world/tiny --device cpu --no-draw --days 1 --output /dev/null",
    "ladcast forecast --model world/tiny --device cpu --no-draw --days 1 --output world",
    *(f"{EXPORT} o.nc --{n}" for n in ("levels 1", "levels -500", "leads -6", "leads 7", "members 99", "members -1")),
    *(f"{EXPORT} o.nc --region {n}" for n in ("1,2,3", "a,b,c,d", "0,90,10,-90", "0,nan,10,50", "0,0,0,0")),
    *(
        f"{EXPORT} {n}"
        for n in ("o.txt", "o", "o.nc --variables nothing", "world/fc.zarr", "/proc/o.nc", "none/../../.")
    ),
    *(f"{EXPORT} o.grib2 --bits {n}" for n in ("0", "-1", "99", "x")),
    *(
        f"{SCORE} --output o.nc --{n}"
        for n in ("part 0/2", "part 3/2", "part x", "workers 0", "workers -1", "block-days -1")
    ),
    *(f"{SCORE} --output o.nc --{n}" for n in ("block-days nan", "regions moon", "statistics luck", "against x=none")),
    f"{SCORE} --output world/tiny/truth.nc",
    f"{SCORE} --output o.nc --scorecard o.txt",
    *(f"{EVALUATE} --output o.nc --{n}" for n in ("every 0", "every -6", "members 0", "days 0", "steps 0", "part 9/3")),
    f"{EVALUATE} --output world/states.zarr",
    *(f"{STATISTICS} --{n}" for n in ("stride 0", "stride -1", "end 1800-01-01", "channels none")),
    "ladcast-data statistics world/states.zarr o.json --grid 99999999x9999999",
    "ladcast-data statistics world/states.zarr o.json --grid 0x0",
    "ladcast-data regrid world/states.zarr o.zarr --onto 99999999x9999999",
    "ladcast-data regrid world/states.zarr o.zarr --onto x",
    *(f"ladcast-data derive world/states.zarr o.zarr --step-hours {n}" for n in ("0", "5", "-6")),
    "ladcast-data excerpt world/states.zarr o --starts 2001-01-01T00 --days -1",
    "ladcast-data encode world/states.zarr world/states.zarr o.zarr",
    *(
        f"{TRY} training.{n}"
        for n in ("ema_decay=nan", "ema_decay=1.5", "steps=0", "batch_size=1e9", "seed=-1", "seed=1e99")
    ),
    *(f"{TRY} training.optimizer.{n}" for n in ("learning_rate=inf", "learning_rate=-1", "weight_decay=-1")),
    *(f"{TRY} training.optimizer.{n}" for n in ("warmup_steps=-1", "max_gradient_norm=-1", "final_fraction=2")),
    *(
        f"{TRY} {n}"
        for n in ("trackers=[x]", "stride=0", "stride=-1", "reading_threads=0", "model.widths=[]", "nothing=1")
    ),
    *(f"{TRY} {n}" for n in ("model.latent_channels=0", "train.start=x", "train.end=1800-01-01", "data=3")),
    *(f"ladcast products quantiles world/fc.zarr o.nc --level {n}" for n in ("2", "-1", "nan", "x")),
    *(f"ladcast products points world/fc.zarr o.csv --place {n}" for n in ("Nowhere", "Oslo,999,0")),
    *(f"ladcast products probability world/fc.zarr o.nc --event {n}" for n in ("x", "t2m>>3", "rain>1kt")),
    *(
        f"ladcast track world/fc.zarr --all --output o.nc --set detection.{n}"
        for n in ("depth_pa=-1", "radius_deg=1e9")
    ),
    *(f"ladcast track world/fc.zarr --all --output o.nc --set detection.{n}" for n in ("separation_deg=nan", "x=1")),
    *(f"ladcast plot world/fc.zarr --output o.{n}" for n in ("txt", "png --lead-days -1", "png --lead-days nan")),
    "ladcast merge world/fc.zarr --output o.nc",
    "ladcast analysis 2001-01-01T06 --source world/states.zarr --output world/states.zarr",
]
