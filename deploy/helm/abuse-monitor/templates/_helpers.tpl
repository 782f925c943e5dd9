{{- define "abuse-monitor.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{- define "abuse-monitor.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "abuse-monitor.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* Labels that select: (dict "root" $ "component" "monitor") */}}
{{- define "abuse-monitor.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "abuse-monitor.labels" -}}
{{ include "abuse-monitor.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "abuse-monitor.image" -}}
{{- $i := .Values.image }}
{{- if $i.digest }}{{ .repository }}@{{ $i.digest }}{{ else }}{{ .repository }}:{{ $i.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* A pod: (dict "root" $ "component" … "repository" … "command" … "env" [] "ports" [] "probes" "" "resources" …) */}}
{{- define "abuse-monitor.pod" -}}
{{- $ := .root }}
{{- $v := $.Values }}
metadata:
  labels:
    {{- include "abuse-monitor.labels" . | nindent 4 }}
    {{- with $v.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/settings: {{ toYaml $v.settings | sha256sum }}
    {{- with $v.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "abuse-monitor.serviceAccount" $ }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: {{ .component }}
      image: {{ include "abuse-monitor.image" (dict "Values" $v "Chart" $.Chart "repository" .repository) }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args: [{{ .command }}, --config, /etc/abuse-monitor/monitor.yaml]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      {{- with concat .env $v.extraEnv }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports: {{- toYaml .ports | nindent 8 }}
      {{- .probes | nindent 6 }}
      resources: {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - {name: settings, mountPath: /etc/abuse-monitor, readOnly: true}
        - {name: secrets, mountPath: {{ $v.secrets.dir }}, readOnly: true}
        - {name: state, mountPath: /var/lib/monitor}
        - {name: cache, mountPath: /var/cache/monitor}
        - {name: tmp, mountPath: /tmp}
        {{- with $v.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: settings
      configMap: {name: {{ include "abuse-monitor.fullname" $ }}}
    - name: secrets
      secret: {secretName: {{ $v.secrets.name }}, defaultMode: 0440}
    - name: state
      emptyDir: {sizeLimit: 2Gi}
    - name: cache
      emptyDir: {sizeLimit: 256Mi}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- with $v.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "abuse-monitor.selector" . | nindent 10 }}
  {{- with $v.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Probes over HTTP: (dict "port" "metrics" "startup" 36) */}}
{{- define "abuse-monitor.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: {{ .startup }}
livenessProbe:
  httpGet: {path: /healthz, port: {{ .port }}}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}
