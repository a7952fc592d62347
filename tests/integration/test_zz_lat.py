import time, statistics, resource, threading
from tests.integration.test_predictor import fresh
from tests.integration.predictor_world import *
from edgeseq_core.testing.engine import FakeEngine
import pytest, os
@pytest.mark.timeout(120)
def test_latency(kafka_broker, redis_url, tmp_path):
    w = World(kafka_broker, redis_url)
    w.promote("dates", 1)
    p = w.spawn(tmp_path)
    try:
        w.replies(w.ask(fresh("warm"), ), timeout_s=30)
        time.sleep(1)
        def cpu(): 
            f=open(f"/proc/{p.pid}/stat").read().split(); return (int(f[13])+int(f[14]))/100
        c0,t0=cpu(),time.monotonic(); time.sleep(5); print("idle cpu %", 100*(cpu()-c0)/(time.monotonic()-t0))
        rss=[l for l in open(f"/proc/{p.pid}/status") if l.startswith("VmRSS")]; print(rss)
        lat=[]; tim=[]
        for n in range(300):
            r=fresh(f"hello wor{n}"); t=time.monotonic(); w.ask(r)
            while r.request_id not in w.ear.heard: time.sleep(0.0003)
            h=w.ear.heard[r.request_id][0]; lat.append((h.at_s-t)*1000); tim.append(h.reply.timings)
        lat=lat[20:]; lat.sort()
        print(kafka_broker.name,"p50 %.1f p95 %.1f p99 %.1f max %.1f"%(lat[len(lat)//2],lat[int(len(lat)*.95)],lat[int(len(lat)*.99)],lat[-1]))
        for f in ("queue_ms","compute_ms","total_ms"):
            v=sorted(getattr(t,f) for t in tim); print(f,"p50 %.2f p99 %.2f"%(v[len(v)//2],v[int(len(v)*.99)]))
        # throughput
        t=time.monotonic(); names=[w.ask(fresh(f"t{n}"),topic=w.topics.bulk) for n in range(2000)]; w.replies(*names)
        print("bulk/s", 2000/(time.monotonic()-t))
    finally:
        p.kill(); p.wait(); w.close()
    print(open(tmp_path/"predictor.log").read()[-800:])
    assert 0
