# Run by cluster.sh, in the clone, when the cluster is ready.
seconds() { python -c "import sys, time; print(f'{time.time() - float(sys.argv[1]):.1f} s, load average', open('/proc/loadavg').read()[:5])" "$1"; }
address() { kubectl get service demo -o jsonpath='{.spec.clusterIP}'; }
answers() { curl -fsS --max-time 2 -o "$run/health" "http://$(address)/health" 2>"$run/health.log"; }
rollout() { # KIND REQUESTS TOKENS: restart all pods under load
  python "$files/../under_load.py" "http://$(address)" "$2" 12 "$3" \
    bash -ec "kubectl rollout restart $1/demo; kubectl rollout status --timeout=300s $1/demo"
}

echo "== Deployment, a directory of the node"
install -d -o 1000 -g 1000 /srv/llamafile-recipe
begun=$(date +%s.%N)
kubectl apply -f deploy/kubernetes.yaml
until answers; do sleep 0.1; done
echo "first pod ready: $(seconds "$begun")"
kubectl rollout status --timeout=120s deployment/demo
echo "three pods ready: $(seconds "$begun")"
kubectl rollout status --timeout=120s daemonset/demo-prefetch
kubectl get pods -o wide
kubectl exec deployment/demo -c server -- sh -c 'id; grep -E "Cap(Eff|Bnd)|NoNewPrivs" /proc/1/status'
kubectl exec deployment/demo -c server -- sh -c 'touch /x || touch /cache/x' && exit 1
rollout deployment 1200 128
