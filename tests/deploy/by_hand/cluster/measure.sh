# Run by cluster.sh, in the clone, when the cluster is ready.
seconds() { echo "$(awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s, load average $(cut -d ' ' -f 1 /proc/loadavg)"; }
address() { kubectl get service demo -o jsonpath='{.spec.clusterIP}'; }
health() { curl -sS --max-time 2 -o "$run/health" "http://$1/health" 2>"$run/health.log"; }
applied() { # FILE KIND: how long until the first pod, and all of them
  local begun ip
  begun=$(date +%s.%N)
  kubectl apply -f "$1" >"$run/applied"
  ip=$(address)
  until health "$ip"; do sleep 0.1; done
  echo "first pod ready: $(seconds "$begun")"
  until [ "$(kubectl get "$2/demo" -o jsonpath='{.status.readyReplicas}')" = 3 ]; do sleep 0.5; done
  echo "three pods ready: $(seconds "$begun")"
}
rollout() { # KIND REQUESTS TOKENS: restart all pods under load
  python "$files/../under_load.py" "http://$(address)" "$2" 12 "$3" \
    bash -ec "kubectl rollout restart $1/demo; kubectl rollout status --timeout=300s $1/demo"
}
deleted() { # FILE: until no pod is left
  kubectl delete --wait -f "$1" >"$run/deleted"
  kubectl wait --for=delete --timeout=120s pod --all >"$run/deleted"
}
variant() { # SED-COMMAND...: write the files for a changed models.yaml into $run/deploy
  cp -r demo models.lock "$run"
  sed "${@/#/-e}" models.yaml >"$run/models.yaml"
  LLAMAFILE_CATALOGUE=$run/models.yaml python -m doit deploy:kubernetes
}
volumes() { # what a cluster's provisioner makes, for three pods
  for n in 0 1 2; do
    mkdir -p "/srv/volume-$n"
    printf '%s
' --- 'apiVersion: v1' 'kind: PersistentVolume' "metadata: {name: volume-$n}" 'spec:'       '  capacity: {storage: 10Gi}' '  accessModes: [ReadWriteOnce]' "  local: {path: /srv/volume-$n}"       '  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: ['       '    {key: kubernetes.io/hostname, operator: In, values: [node1]}]}]}}'
  done
}
ask() { # CURL-OPTION...
  curl -sS -o "$run/models" -w '%{http_code}\n' "$@" "http://$(address)/v1/models"
}

echo "== Deployment: pods share a directory of the node"
install -d -o 1000 -g 1000 /srv/llamafile-recipe
applied deploy/kubernetes.yaml deployment
kubectl rollout status --timeout=120s daemonset/demo-prefetch
kubectl get pods -o wide
kubectl exec deployment/demo -c server -- sh -c 'id; grep -E "Cap(Eff|Bnd)|NoNewPrivs" /proc/1/status'
kubectl exec deployment/demo -c server -- sh -c '! touch /x && ! touch /cache/x'
rollout deployment 1200 128

echo "== Answers that take long"
rollout deployment 120 1500

echo "== A key"
kubectl create secret generic demo-key --from-literal=LLAMA_API_KEY=secret-of-the-test
kubectl rollout restart deployment/demo
kubectl rollout status --timeout=300s deployment/demo >"$run/status"
[ "$(ask)" = 401 ]
[ "$(ask -H 'Authorization: Bearer secret-of-the-test')" = 200 ]
LLAMA_API_KEY=secret-of-the-test rollout deployment 240 128
kubectl delete secret demo-key
deleted deploy/kubernetes.yaml

echo "== StatefulSet: each pod has a volume; an autoscaler, whose version 2 was a beta in 1.20"
variant "/node_cache/d" "s/{replicas: 3/&, max_replicas: 4/" "/^  demo:/,/^$/s/threads: 1}/threads: 1, metrics: true}/"
sed -i 's#autoscaling/v2$#autoscaling/v2beta2#' "$run/deploy/kubernetes.yaml"
volumes | kubectl apply -f - >"$run/volumes"
applied "$run/deploy/kubernetes.yaml" statefulset # the autoscaler makes three of one
kubectl get statefulset,horizontalpodautoscaler,persistentvolumeclaim
kubectl exec demo-0 -c server -- sh -c '! touch /cache/x'
rollout statefulset 1200 128
deleted "$run/deploy/kubernetes.yaml"
