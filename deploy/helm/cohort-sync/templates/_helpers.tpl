{{- define "cohort-sync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 47 | trimAll "-" }}
{{- end }}

{{/* Short enough for `-migrate-post` behind it, as names of CronJobs end at 52 characters; without dots, for Services. */}}
{{- define "cohort-sync.fullname" -}}
{{- $name := include "cohort-sync.name" . }}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $both .Values.fullnameOverride | replace "." "-" | trunc 39 | trimAll "-" }}
{{- end }}

{{/* Takes a list: the root, and a component, or "" for all. */}}
{{- define "cohort-sync.selector" -}}
{{- $root := index . 0 }}
{{- $labels := dict "app.kubernetes.io/name" (include "cohort-sync.name" $root) "app.kubernetes.io/instance" $root.Release.Name }}
{{- with index . 1 }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end }}
{{- toYaml $labels }}
{{- end }}

{{/* Of a pod: takes a list as the selector does, and further labels. Without versions, since each new label is a rollout. */}}
{{- define "cohort-sync.podLabels" -}}
{{- $root := index . 0 }}
{{- merge (include "cohort-sync.selector" . | fromYaml) (index . 2) $root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Of an object: takes a list: the root, what its name has behind that of the release, its component, further labels. */}}
{{- define "cohort-sync.metadata" -}}
{{- $root := index . 0 }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-_." }}
{{- $own := dict "app.kubernetes.io/managed-by" $root.Release.Service "helm.sh/chart" $chart }}
{{- $_ := set $own "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63 | trimAll "-_.") -}}
name: {{ printf "%s%s" (include "cohort-sync.fullname" $root) (index . 1) | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- merge $own (include "cohort-sync.podLabels" (list $root (index . 2) (index . 3)) | fromYaml) | toYaml | nindent 2 }}
{{- end }}

{{- define "cohort-sync.serviceAccount" -}}
{{- default (ternary (include "cohort-sync.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "cohort-sync.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Longer than the drain and what comes after it, so that Kubernetes never cuts a batch off. */}}
{{- define "cohort-sync.graceSeconds" -}}
{{- $shutdown := default dict .Values.config.shutdown }}
{{- add 15 (ceil (default 60 $shutdown.grace_s)) }}
{{- end }}

{{/* Liveness is red after 30 seconds without progress; so often may it be that before the pod is killed. */}}
{{- define "cohort-sync.livenessFailures" -}}
{{- $watchdog := default dict .Values.config.watchdog }}
{{- max 3 (ceil (divf (default 60 $watchdog.stall_s) 10)) }}
{{- end }}

{{/* A number as such, and a share such as "25%" as text. */}}
{{- define "cohort-sync.numberOrShare" -}}
{{- if kindIs "string" . }}{{ quote . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{/* Which Secrets each part has a use for; it is given no others. The operators' commands run in the workers' pods, and
     that of `helm test` in a pod of its own, so these reach all targets too. */}}
{{- define "cohort-sync.uses" -}}
worker: [kafka, projections, environment, otherCell]
config-check: [kafka, projections, environment]
projector: [projections, environment]
gateway: [kafka, webhooks]
migrate: []
{{- end }}

{{/* cohort-sync.yaml: the values' own settings, with where to listen and where the credentials are. Takes "root" and
     "component". A file that is missing is an error, so what needs a Secret that this part is not given is left out. */}}
{{- define "cohort-sync.config" -}}
{{- $credentials := .root.Values.credentials }}
{{- $uses := get (include "cohort-sync.uses" . | fromYaml) .component }}
{{- $folder := "/etc/cohort-sync/credentials" }}
{{- $config := deepCopy .root.Values.config }}
{{- $_ := set $config "http" (dict "host" "0.0.0.0" "port" 9400) }}
{{- $_ := set $config "gateway" (merge (dict "host" "0.0.0.0" "port" 8400) (default dict $config.gateway)) }}
{{- $_ := set $config "postgres" (merge (dict "dsn_file" (printf "%s/postgres-dsn" $folder)) (default dict $config.postgres)) }}
{{- with $credentials.postgresTls }}
{{- if .existingSecret }}
{{- $_ := set $config.postgres "sslmode" .mode }}
{{- if .caKey }}{{ $_ := set $config.postgres "sslrootcert" (printf "%s/postgres-ca.crt" $folder) }}{{ end }}
{{- if .certKey }}{{ $_ := set $config.postgres "sslcert" (printf "%s/postgres-tls.crt" $folder) }}{{ end }}
{{- if .keyKey }}{{ $_ := set $config.postgres "sslkey" (printf "%s/postgres-tls.key" $folder) }}{{ end }}
{{- end }}
{{- end }}
{{- if has "kafka" $uses }}
{{- if $credentials.kafka.existingSecret }}
{{- $_ := set $config.kafka "sasl_password_file" (printf "%s/kafka-password" $folder) }}
{{- end }}
{{- if $credentials.kafkaTls.existingSecret }}
{{- $_ := mergeOverwrite $config.kafka (include "cohort-sync.tlsFiles" (list $credentials.kafkaTls (printf "%s/kafka" $folder)) | fromYaml) }}
{{- end }}
{{- else if $credentials.kafka.existingSecret }}
{{- $_ := set $config "kafka" (omit $config.kafka "security_protocol" "sasl_mechanism" "sasl_username") }}
{{- end }}
{{- $projections := list }}
{{- range $config.projections }}
{{- $isInSecret := and $credentials.projections.existingSecret (eq .type "redis") (not .url) }}
{{- if $isInSecret }}
{{- $_ := set . "url_file" (printf "%s/projection-%s" $folder .name) }}
{{- end }}
{{- if and $credentials.redisTls.existingSecret (has "projections" $uses) (eq .type "redis") (not (hasPrefix "redis://" (default "" .url))) }}
{{- $_ := mergeOverwrite . (include "cohort-sync.tlsFiles" (list $credentials.redisTls (printf "%s/redis" $folder)) | fromYaml) }}
{{- end }}
{{- if or (has "projections" $uses) (not $isInSecret) }}{{ $projections = append $projections . }}{{ end }}
{{- end }}
{{- if $config.projections }}{{ $_ := set $config "projections" $projections }}{{ end }}
{{- if and $credentials.webhooks.existingSecret (has "webhooks" $uses) }}
{{- range $config.feeds }}
{{- if has .name $credentials.webhooks.feeds }}
{{- $_ := set . "webhook_secret_file" (printf "%s/webhook-%s" $folder .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .root.Values.manifests }}
{{- $_ := set $config "manifests_dir" "/etc/cohort-sync/config/manifests" }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The settings for what a Secret holds of TLS: takes a list of its values and how its files begin. */}}
{{- define "cohort-sync.tlsFiles" -}}
{{- with index . 0 }}
{{- if .caKey }}
ssl_cafile: {{ index $ 1 }}-ca.crt
{{- end }}
{{- if .certKey }}
ssl_certfile: {{ index $ 1 }}-tls.crt
{{- end }}
{{- if .keyKey }}
ssl_keyfile: {{ index $ 1 }}-tls.key
{{- end }}
{{- end }}
{{- end }}

{{/* And the same Secret as a source of files: takes a list of its values and how its files begin. */}}
{{- define "cohort-sync.tlsSource" -}}
{{- with index . 0 -}}
- secret:
    name: {{ .existingSecret | quote }}
    items:
      {{- if .caKey }}
      - {key: {{ .caKey | quote }}, path: {{ index $ 1 }}-ca.crt}
      {{- end }}
      {{- if .certKey }}
      - {key: {{ .certKey | quote }}, path: {{ index $ 1 }}-tls.crt}
      {{- end }}
      {{- if .keyKey }}
      - {key: {{ .keyKey | quote }}, path: {{ index $ 1 }}-tls.key}
      {{- end }}
{{- end }}
{{- end }}

{{/* Takes "root" and a dictionary "files": the component whose cohort-sync.yaml it is, by the name of the file. */}}
{{- define "cohort-sync.configMapData" -}}
{{- $root := .root }}
{{- $data := dict }}
{{- range $file, $component := .files }}
{{- $_ := set $data $file (include "cohort-sync.config" (dict "root" $root "component" $component)) }}
{{- end }}
{{- range $name, $manifest := $root.Values.manifests }}
{{- $_ := set $data (printf "manifest.%s" $name) $manifest }}
{{- end }}
{{- toYaml $data }}
{{- end }}

{{/* Of a pod: takes "root", "configMap", "file" in it, and "component", which reaches PostgreSQL by its own role where it has one. */}}
{{- define "cohort-sync.volumes" -}}
{{- $values := .root.Values }}
{{- $credentials := $values.credentials }}
{{- $uses := get (include "cohort-sync.uses" . | fromYaml) .component }}
{{- $own := default dict (get $credentials (ternary "migration" .component (eq .component "migrate"))) }}
{{- $dsn := ternary $own $credentials.postgres (ne (default "" $own.existingSecret) "") }}
- name: config
  configMap:
    name: {{ .configMap | quote }}
    items:
      - {key: {{ .file }}, path: cohort-sync.yaml}
      {{- range $name, $_ := $values.manifests }}
      - {key: {{ printf "manifest.%s" $name | quote }}, path: {{ printf "manifests/%s" $name | quote }}}
      {{- end }}
- name: credentials
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ $dsn.existingSecret | quote }}, items: [{key: {{ $dsn.key | quote }}, path: postgres-dsn}]}
      {{- if $credentials.postgresTls.existingSecret }}
      {{- include "cohort-sync.tlsSource" (list $credentials.postgresTls "postgres") | nindent 6 }}
      {{- end }}
      {{- if has "kafka" $uses }}
      {{- with $credentials.kafka }}
      {{- if .existingSecret }}
      - secret: {name: {{ .existingSecret | quote }}, items: [{key: {{ .passwordKey | quote }}, path: kafka-password}]}
      {{- end }}
      {{- end }}
      {{- if $credentials.kafkaTls.existingSecret }}
      {{- include "cohort-sync.tlsSource" (list $credentials.kafkaTls "kafka") | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- if has "projections" $uses }}
      {{- if $credentials.projections.existingSecret }}
      {{- range $values.config.projections }}
      {{- if and (eq .type "redis") (not .url) }}
      - secret:
          name: {{ $credentials.projections.existingSecret | quote }}
          items: [{key: {{ .name | quote }}, path: {{ printf "projection-%s" .name | quote }}}]
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if $credentials.redisTls.existingSecret }}
      {{- include "cohort-sync.tlsSource" (list $credentials.redisTls "redis") | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- if and (has "webhooks" $uses) $credentials.webhooks.existingSecret }}
      {{- range $credentials.webhooks.feeds }}
      - secret:
          name: {{ $credentials.webhooks.existingSecret | quote }}
          items: [{key: {{ . | quote }}, path: {{ printf "webhook-%s" . | quote }}}]
      {{- end }}
      {{- end }}
{{- if and (has "otherCell" $uses) $credentials.otherCell.existingSecret }}
- {name: other-cell, secret: {secretName: {{ $credentials.otherCell.existingSecret | quote }}, defaultMode: 0440}}
{{- end }}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- end }}

{{/* Of a pod that runs a command of ours: takes "root" and "serviceAccount". */}}
{{- define "cohort-sync.podSecurity" -}}
serviceAccountName: {{ .serviceAccount | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Takes "root" and "component". */}}
{{- define "cohort-sync.container" -}}
{{- $uses := get (include "cohort-sync.uses" . | fromYaml) .component -}}
image: {{ include "cohort-sync.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: COHORT_SYNC_CONFIG, value: /etc/cohort-sync/config/cohort-sync.yaml}
  {{- with .root.Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if and (has "environment" $uses) .root.Values.credentials.environment.existingSecret }}
envFrom:
  - secretRef: {name: {{ .root.Values.credentials.environment.existingSecret | quote }}}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/cohort-sync/config, readOnly: true}
  - {name: credentials, mountPath: /etc/cohort-sync/credentials, readOnly: true}
  {{- if and (has "otherCell" $uses) .root.Values.credentials.otherCell.existingSecret }}
  - {name: other-cell, mountPath: /etc/cohort-sync/other-cell, readOnly: true}
  {{- end }}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Where a pod may run: takes the values that say so. */}}
{{- define "cohort-sync.scheduling" -}}
{{- $said := dict }}
{{- range $name := list "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with get $ $name }}{{ $_ := set $said $name . }}{{ end }}
{{- end }}
{{- with $said }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* How many replicas a Deployment is given. An autoscaler changes the number, so then it is not ours to say; but what is
     merely left out falls back to 1, for as long as the last to say it was us: when scaling is turned on, and until the
     autoscaler changes it first. By server-side apply the field's owner tells whether that is so. Without it, Helm
     compares with what it said last time, and the live number is the only one that changes nothing. */}}
{{- define "cohort-sync.replicas" -}}
{{- if not .scaled }}
{{- int64 .values.replicas }}
{{- else }}
{{- $name := printf "%s-%s" (include "cohort-sync.fullname" .root) .component }}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace $name }}
{{- if $live }}
{{- $applied := false }}
{{- $ours := false }}
{{- range $live.metadata.managedFields }}
{{- if and (eq .manager "helm") (eq .operation "Apply") }}
{{- $applied = true }}
{{- $ours = or $ours (hasKey (get .fieldsV1 "f:spec" | default dict) "f:replicas") }}
{{- end }}
{{- end }}
{{- if or $ours (not $applied) }}{{ int64 $live.spec.replicas }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Deployment with what belongs to each: takes "root", "component", "values", "args", "scaled", "strategy",
     "graceSeconds", and for the gateway "ports" and "lifecycle". */}}
{{- define "cohort-sync.deployment" -}}
{{- $fullname := include "cohort-sync.fullname" .root }}
{{- $selector := include "cohort-sync.selector" (list .root .component) }}
{{- $file := ternary "cohort-sync.yaml" (printf "%s.yaml" .component) (eq .component "worker") }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "cohort-sync.metadata" (list .root (printf "-%s" .component) .component dict) | nindent 2 }}
spec:
  {{- with include "cohort-sync.replicas" . | trim }}
  replicas: {{ . }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
  strategy:
    {{- toYaml .strategy | nindent 4 }}
  template:
    metadata:
      labels:
        {{- include "cohort-sync.podLabels" (list .root .component .values.podLabels) | nindent 8 }}
      annotations:
        checksum/config: {{ include "cohort-sync.configMapData" (dict "root" .root "files" (dict "cohort-sync.yaml" .component)) | sha256sum }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "cohort-sync.podSecurity" (dict "root" .root "serviceAccount" (include "cohort-sync.serviceAccount" .root)) | nindent 6 }}
      terminationGracePeriodSeconds: {{ .graceSeconds }}
      {{- include "cohort-sync.scheduling" .values | nindent 6 }}
      {{- if .values.topologySpread.enabled }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: {{ .values.topologySpread.topologyKey | quote }}
          whenUnsatisfiable: {{ .values.topologySpread.whenUnsatisfiable }}
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
      {{- end }}
      containers:
        - name: {{ .component }}
          args: {{ toJson .args }}
          {{- include "cohort-sync.container" . | nindent 10 }}
          ports:
            - {name: metrics, containerPort: 9400}
            {{- with .ports }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          # All of them ask the process's own loop. Liveness is its progress and nothing else: a PostgreSQL that is
          # away turns readiness red and liveness not. Without progress for watchdog.stall_s the process ends itself and
          # logs where it hung, so liveness gives it half a minute more.
          startupProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: {{ include "cohort-sync.livenessFailures" .root }}
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          {{- with .lifecycle }}
          lifecycle:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
      volumes:
        {{- include "cohort-sync.volumes" (dict "root" .root "configMap" $fullname "file" $file "component" .component) | nindent 8 }}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "cohort-sync.metadata" (list .root (printf "-%s" .component) .component dict) | nindent 2 }}
spec:
  maxUnavailable: {{ include "cohort-sync.numberOrShare" .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready waits for something; keeping it helps nobody and blocks the drain of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- $selector | nindent 6 }}
{{- end }}
{{- end }}

{{/* An HPA by CPU: takes "root", "component", "scaling". */}}
{{- define "cohort-sync.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "cohort-sync.metadata" (list .root (printf "-%s" .component) .component dict) | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: "{{ include "cohort-sync.fullname" .root }}-{{ .component }}"}
  minReplicas: {{ .scaling.minReplicas | int64 }}
  maxReplicas: {{ .scaling.maxReplicas | int64 }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .scaling.targetCPUUtilizationPercentage | int64 }}}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: {{ .scaling.scaleDownStabilizationSeconds | int64 }}
      policies: [{type: Pods, value: 1, periodSeconds: 120}]
{{- end }}
